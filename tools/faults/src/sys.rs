//! The calls of the kernel that the loops need: tracing a process call by call, limits, CPUs, and a
//! disk that fails. The fence of this crate's `unsafe`.
//!
//! Promise: if this process ends, a process that it traces is killed (`PTRACE_O_EXITKILL`). Must
//! never: trace or signal a process that neither this one nor one that it traces has started, or
//! change this process beyond its CPU, its alarm and the signals that it ignores.

use asmt_kit::threads::cpu_count;
use libc::{c_int, c_long, c_uint, c_void, pid_t};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Turns a C result into a `Result`.
fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The reason why a traced thread has stopped.
#[derive(Debug)]
pub enum Stop {
    /// It is about to make a system call: its number and arguments.
    Entry(i64, [u64; 6]),
    /// A system call has been made, or was skipped.
    Exit,
    /// A signal was sent to it.
    Signal(c_int),
    /// An event of ptrace: a new thread or process, an exec.
    Event,
    /// It has ended: with an exit status, or by a signal.
    Ended(Option<i32>, Option<i32>),
}

/// The distance that a stopped thread may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// To its next system call, or to the end of this one.
    ToCall,
    /// By one instruction.
    Step,
    /// Until its filter stops it, or it gets a signal or ends.
    Free,
}

/// A limit for a process that is started, soft and hard.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// `RLIMIT_…`
    pub resource: c_uint,
    /// Its value.
    pub value: u64,
}

fn set_limit(limit: Limit) -> io::Result<()> {
    let value = libc::rlimit { rlim_cur: limit.value, rlim_max: limit.value };
    // SAFETY: `value` is a live structure that the call only reads.
    check(i64::from(unsafe { libc::setrlimit(limit.resource, &raw const value) })).map(drop)
}

/// Lets this process, and the processes that it starts, run on these CPUs only. Best effort: only
/// the speed depends on it.
fn run_on(cpus: impl Iterator<Item = usize>) {
    let mut bits = [0_u64; 16];
    for cpu in cpus.filter(|cpu| *cpu < 64 * 16) {
        bits[cpu / 64] |= 1 << (cpu % 64);
    }
    // SAFETY: the call reads as many bytes as `bits` has.
    unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&bits), bits.as_ptr()) };
}

/// Lets this process, and the processes that it starts, run on one CPU only. The tracer and the
/// traced process take turns, and most of the time goes into waking each other across CPUs.
pub fn run_on_one(number: usize) {
    run_on(std::iter::once(number % cpu_count()));
}

/// Lets a command start on any CPU.
pub fn prepare_free(command: &mut Command) {
    let before_exec = || {
        run_on(0..64 * 16);
        Ok(())
    };
    // SAFETY: the code between fork and exec makes a system call only, and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// A seccomp filter, which stops a traced process at some of its calls. The processes that it
/// starts inherit the filter.
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// One that stops at these calls.
    pub fn only(numbers: &[i64]) -> Self {
        Self::new(numbers, libc::SECCOMP_RET_TRACE, libc::SECCOMP_RET_ALLOW)
    }

    /// One that stops at all calls but these. The exec that starts the program must be one of them:
    /// the tracer cannot let it go on yet.
    pub fn all_but(numbers: &[i64]) -> Self {
        Self::new(numbers, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_TRACE)
    }

    /// Panics if there are more numbers than a jump can pass.
    fn new(numbers: &[i64], these: u32, others: u32) -> Self {
        const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        const JUMP_IF_SAME: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
        let one = |code: u32, jt: usize, k: u32| libc::sock_filter {
            code: code as u16,
            jt: u8::try_from(jt).expect("a short filter"),
            jf: 0,
            k,
        };
        // The number of the call is the first field of `seccomp_data`.
        let mut steps = vec![one(LOAD, 0, 0)];
        let passed = |at: usize| numbers.len() - at;
        steps.extend(numbers.iter().enumerate().map(|(at, number)| one(JUMP_IF_SAME, passed(at), *number as u32)));
        steps.extend([one(RETURN, 0, others), one(RETURN, 0, these)]);
        Self(steps)
    }

    /// Filters the calls of this process from now on.
    fn install(&self) -> io::Result<()> {
        let length = u16::try_from(self.0.len()).unwrap_or(0);
        let program = libc::sock_fprog { len: length, filter: self.0.as_ptr().cast_mut() };
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
        // SAFETY: `program` describes as many live steps as it says, and the call only reads them.
        check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) }).map(drop)
    }
}

/// Lets a command start with limits, traced by this process, and with a filter if there is one.
pub fn prepare(command: &mut Command, limits: Vec<Limit>, filter: Option<Filter>) {
    let before_exec = move || {
        for limit in &limits {
            set_limit(*limit)?;
        }
        // SAFETY: PTRACE_TRACEME reads none of its other arguments.
        check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
        filter.as_ref().map_or(Ok(()), Filter::install)
    };
    // SAFETY: the code between fork and exec makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
}

/// What becomes of the stops of a thread's filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// It has no filter.
    None,
    /// The tracer gets them.
    Watched,
    /// The filter is not asked. Only root of the machine can do that, and not in every container.
    Suspended,
}

/// Sets the options that the tracer relies on, for a stopped thread. To be called at its first
/// stop; a thread that it starts begins with the same options.
pub fn set_options(tid: pid_t, filtering: Filtering) -> io::Result<()> {
    // A process that a filtered one starts has its filter, and without a tracer its calls would
    // fail.
    const WATCHED: c_int =
        libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACEEXEC;
    let more = match filtering {
        Filtering::None => 0,
        Filtering::Watched => WATCHED,
        Filtering::Suspended => WATCHED | libc::PTRACE_O_SUSPEND_SECCOMP,
    };
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL | more;
    // SAFETY: takes integers only.
    check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, c_long::from(options)) }).map(drop)
}

/// Lets a stopped thread go on, with a signal or with none (0).
pub fn go(tid: pid_t, how: Go, signal: c_int) {
    let request = match how {
        Go::ToCall => libc::PTRACE_SYSCALL,
        Go::Step => libc::PTRACE_SINGLESTEP,
        Go::Free => libc::PTRACE_CONT,
    };
    // If it was killed in the meantime, its end comes next. SAFETY: takes integers only.
    let _ = unsafe { libc::ptrace(request, tid, 0, c_long::from(signal)) };
}

/// Waits for the next stop of any traced thread. `None` if there is no traced thread left, or, with
/// `is_patient` false, if none has stopped yet.
///
/// Errors: `EINTR` when the alarm goes off.
pub fn wait(is_patient: bool) -> io::Result<Option<(pid_t, Stop)>> {
    let mut status = 0;
    let flags = libc::__WALL | if is_patient { 0 } else { libc::WNOHANG };
    // SAFETY: `status` is a live integer that the call fills.
    let tid = match check(i64::from(unsafe { libc::waitpid(-1, &raw mut status, flags) })) {
        Ok(0) => return Ok(None),
        Ok(tid) => pid_t::try_from(tid).unwrap_or(-1),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stop = if libc::WIFEXITED(status) {
        Stop::Ended(Some(libc::WEXITSTATUS(status)), None)
    } else if libc::WIFSIGNALED(status) {
        Stop::Ended(None, Some(libc::WTERMSIG(status)))
    } else if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 || status >> 16 == libc::PTRACE_EVENT_SECCOMP {
        call_stop(tid)
    } else if status >> 16 != 0 {
        Stop::Event
    } else {
        Stop::Signal(libc::WSTOPSIG(status))
    };
    Ok(Some((tid, stop)))
}

fn call_stop(tid: pid_t) -> Stop {
    // SAFETY: the structure has plain integers only, for which all zeros is a valid value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: `info` is a live structure of the size given, which the call fills.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size, &raw mut info) };
    // A stop by the filter has the same two fields at the same place.
    if got > 0 && [libc::PTRACE_SYSCALL_INFO_ENTRY, libc::PTRACE_SYSCALL_INFO_SECCOMP].contains(&info.op) {
        // SAFETY: the kernel reports that this is the part that it has filled.
        let entry = unsafe { info.u.entry };
        return Stop::Entry(entry.nr.cast_signed(), entry.args);
    }
    Stop::Exit
}

/// Registers of a stopped thread, by architecture.
#[cfg(target_arch = "x86_64")]
mod registers {
    pub type Registers = libc::user_regs_struct;

    pub fn set_number(registers: &mut Registers, number: i64) {
        registers.orig_rax = number.cast_unsigned();
    }

    pub fn set_result(registers: &mut Registers, result: i64) {
        registers.rax = result.cast_unsigned();
    }

    pub fn set_third_argument(registers: &mut Registers, value: u64) {
        registers.rdx = value;
    }

    pub fn next_instruction(registers: &Registers) -> u64 {
        registers.rip
    }

    /// The instruction that makes a system call.
    pub const CALL: &[u8] = &[0x0f, 0x05];
}

#[cfg(target_arch = "aarch64")]
mod registers {
    pub type Registers = libc::user_regs_struct;

    pub fn set_result(registers: &mut Registers, result: i64) {
        registers.regs[0] = result.cast_unsigned();
    }

    pub fn set_third_argument(registers: &mut Registers, value: u64) {
        registers.regs[2] = value;
    }

    pub fn next_instruction(registers: &Registers) -> u64 {
        registers.pc
    }

    /// The instruction that makes a system call.
    pub const CALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];
}

fn register_set<T>(request: c_uint, tid: pid_t, set: c_int, registers: &mut T) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: std::ptr::from_mut(registers).cast::<c_void>(), iov_len: size_of::<T>() };
    // SAFETY: `part` describes a live, exclusively borrowed structure; the call reads or fills at
    // most all of it.
    check(unsafe { libc::ptrace(request, tid, c_long::from(set), &raw mut part) }).map(drop)
}

/// The set of registers that every program has.
const GENERAL: c_int = 1;

fn registers_of(tid: pid_t) -> io::Result<registers::Registers> {
    // SAFETY: the structure has plain integers only, for which all zeros is a valid value.
    let mut registers: registers::Registers = unsafe { std::mem::zeroed() };
    register_set(libc::PTRACE_GETREGSET, tid, GENERAL, &mut registers)?;
    Ok(registers)
}

/// Returns true if the next instruction of a stopped thread makes a system call.
pub fn is_at_call(tid: pid_t) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; registers::CALL.len()];
    let next = registers::next_instruction(&registers_of(tid)?);
    File::open(format!("/proc/{tid}/mem"))?.read_exact_at(&mut bytes, next)?;
    Ok(bytes == registers::CALL)
}

fn change_registers(tid: pid_t, change: impl FnOnce(&mut registers::Registers)) -> io::Result<()> {
    let mut registers = registers_of(tid)?;
    change(&mut registers);
    register_set(libc::PTRACE_SETREGSET, tid, GENERAL, &mut registers)
}

/// Makes the kernel skip the call that a thread is about to make. The thread gets this result.
pub fn skip_call(tid: pid_t, result: i64) -> io::Result<()> {
    #[cfg(target_arch = "aarch64")]
    {
        const SYSTEM_CALL: c_int = 0x404;
        let mut number: c_int = -1;
        register_set(libc::PTRACE_SETREGSET, tid, SYSTEM_CALL, &mut number)?;
    }
    change_registers(tid, |registers| {
        #[cfg(target_arch = "x86_64")]
        registers::set_number(registers, -1);
        registers::set_result(registers, result);
    })
}

/// Sets the result, for the thread, of a call that has been made.
pub fn set_result(tid: pid_t, result: i64) -> io::Result<()> {
    change_registers(tid, |registers| registers::set_result(registers, result))
}

/// Sets the third argument of the call that a thread is about to make: the byte count of a read or
/// write.
pub fn set_third_argument(tid: pid_t, value: u64) -> io::Result<()> {
    change_registers(tid, |registers| registers::set_third_argument(registers, value))
}

/// Sends a signal to a process that this one traces.
pub fn signal(pid: pid_t, signal: c_int) {
    // SAFETY: takes integers only.
    let _ = unsafe { libc::kill(pid, signal) };
}

/// Lets a blocking wait end after this number of seconds. With 0, the alarm is off.
pub fn alarm(seconds: u32) {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: the structure has plain integers only, for which all zeros is a valid value. (Without
    // flags, a wait is interrupted and not restarted.)
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
    // SAFETY: the handler does nothing, which is allowed to any thread at any moment.
    let _ = unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    // SAFETY: takes an integer.
    unsafe { libc::alarm(seconds) };
}

/// Ignores a signal in this process and in the processes that it starts.
pub fn ignore(signal: c_int) {
    // SAFETY: SIG_IGN is not a function that could be called.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Drops what the kernel has cached of a file. What is not yet on the disk stays.
pub fn forget(file: &File) {
    // SAFETY: takes an open descriptor and integers only.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Detaches a file system from its device at once, as if the device were gone: from then on
/// everything fails (ext4 and xfs).
pub fn shut_down(mount: &File) -> io::Result<()> {
    // _IOR('X', 125, __u32), with the flag "flush nothing".
    const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
    let mut no_flush: u32 = 2;
    // SAFETY: `no_flush` is a live integer that the call reads.
    check(i64::from(unsafe { libc::ioctl(mount.as_raw_fd(), SHUTDOWN, &raw mut no_flush) })).map(drop)
}

/// Reads memory of a stopped thread.
pub fn memory_at(tid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::fs::File::open(format!("/proc/{tid}/mem"))?.read_at(buffer, address)
}
