//! Comparing 64 bytes with 64 others, and looking up and merging their codes, at once: SIMD where
//! the CPU has it, and a portable twin that gives the same bits.
//!
//! Promise: every way gives the same result for the same bytes; a way is only taken on a CPU that
//! has it. The only file of this crate with `unsafe` in it: loads from arrays whose length the type
//! holds, and calls of functions that were compiled for a CPU that was found. Must never: be given
//! a pointer.

// A row of intrinsics with one reason for all of them reads better than a block for each.
#![allow(clippy::multiple_unsafe_ops_per_block)]

/// Bytes that are compared at once.
pub const LANES: usize = 64;
/// Bytes that are widened at once.
pub const WIDENED: usize = 32;
/// A lane is a code of at most 15 bits. Lanes are kept as planes: of low bytes, of high bytes, and
/// of numbers of bits.
pub const PLANES: usize = 3;
/// Words that 64 lanes are merged to: four lanes each.
pub const WORDS: usize = LANES / 4;

/// A way to compare. Only this file makes the ones that need a CPU of a kind: whoever has one may
/// use it.
pub trait Lanes: Copy {
    /// Bit `i` of the result is set if byte `i` of both is the same.
    fn equal(self, a: &[u8; LANES], b: &[u8; LANES]) -> u64;

    /// Stores each byte as a word.
    fn widen(self, bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]);

    /// Gathers lanes at the beginning of `dense`, zeros behind them: for each bit of `literals`
    /// what the table has for that byte, for each of `taken` what is in `sparse` there.
    #[expect(clippy::too_many_arguments, reason = "what an instruction takes; a struct would leave registers")]
    #[inline(always)]
    fn gather(
        self,
        table: &[[u8; 256]; PLANES],
        bytes: &[u8; LANES],
        literals: u64,
        sparse: [&[u8; LANES]; PLANES],
        taken: u64,
        dense: [&mut [u8; LANES]; PLANES],
    ) {
        for ((table, sparse), dense) in table.iter().zip(sparse).zip(dense) {
            *dense = [0; LANES];
            let lanes = (0..LANES).filter(|lane| (literals | taken) >> lane & 1 == 1);
            for (dense, lane) in dense.iter_mut().zip(lanes) {
                *dense = if literals >> lane & 1 == 1 { table[usize::from(bytes[lane])] } else { sparse[lane] };
            }
        }
    }

    /// Merges each four lanes to a word, the first in the lowest bits, and adds up how many bits it
    /// has.
    #[inline(always)]
    fn merge(self, planes: [&[u8; LANES]; PLANES], words: &mut [u64; WORDS], counts: &mut [u32; WORDS]) {
        let [low, high, lengths] = planes;
        for (index, (word, count)) in words.iter_mut().zip(counts).enumerate() {
            (*word, *count) = (0, 0);
            for lane in 4 * index..4 * index + 4 {
                *word |= u64::from(u16::from_le_bytes([low[lane], high[lane]])) << *count;
                *count += u32::from(lengths[lane]);
            }
        }
    }
}

/// Work that is compiled once for each way to compare.
pub trait Kernel {
    /// What it gives.
    type Output;
    /// Does it. To be marked `#[inline(always)]`, so that all of it is compiled for the CPU.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// A way to compare that this CPU has: there is no other way to get one than to ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimdLevel(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Eight bytes at a time in a general register.
    Portable,
    /// x86-64 with AVX2 and BMI.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512BW and BMI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// x86-64 with AVX-512VBMI and VBMI2 as well.
    #[cfg(target_arch = "x86_64")]
    Avx512Vbmi,
    /// aarch64; every one has it.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl SimdLevel {
    /// Those that this CPU has, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut ways = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("popcnt")
            {
                ways.push(Self(Kind::Avx2));
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                    ways.push(Self(Kind::Avx512));
                    if is_x86_feature_detected!("avx512vbmi") && is_x86_feature_detected!("avx512vbmi2") {
                        ways.push(Self(Kind::Avx512Vbmi));
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        ways.push(Self(Kind::Neon));
        ways
    }

    /// The fastest that this CPU has.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self(Kind::Portable))
    }

    /// Its name, as listings show it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vbmi => "avx512-vbmi",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// Whether [`Lanes::gather`] and [`Lanes::merge`] are quick in this way: right they are in any.
    pub fn packs(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Kind::Avx512Vbmi;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Does the work in this way.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Kind::Portable => kernel.run(PortableLanes),
            // SAFETY: the CPU was found to have what the function is compiled for, or there were no
            // such way.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { x86::run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { x86::run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vbmi => unsafe { x86::run_avx512_vbmi(kernel) },
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => kernel.run(neon::NeonLanes(())),
        }
    }
}

/// Eight bytes at a time.
#[derive(Clone, Copy)]
struct PortableLanes;

impl Lanes for PortableLanes {
    #[inline(always)]
    fn equal(self, a: &[u8; LANES], b: &[u8; LANES]) -> u64 {
        const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let mut mask = 0;
        for (index, (a, b)) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).enumerate() {
            let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
            // The top bit of each byte of `differing` that is zero; no carry leaves a byte.
            let zeros = !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS);
            // Brings the eight top bits together in the highest byte.
            let bits = (zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            mask |= bits << (8 * index);
        }
        mask
    }

    #[inline(always)]
    fn widen(self, bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]) {
        for (word, byte) in words.iter_mut().zip(bytes) {
            *word = u16::from(*byte);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, LANES, Lanes, PLANES, WIDENED, WORDS};
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _mm_loadu_si128, _mm256_cmpeq_epi8, _mm256_cvtepu8_epi16, _mm256_loadu_si256,
        _mm256_movemask_epi8, _mm256_storeu_si256, _mm512_add_epi16, _mm512_add_epi32, _mm512_and_si512, _mm512_cmpeq_epi8_mask,
        _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_maskz_compress_epi8, _mm512_movepi8_mask, _mm512_or_si512,
        _mm512_permutex2var_epi8, _mm512_permutex2var_epi32, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_setr_epi32,
        _mm512_setzero_si512, _mm512_shldv_epi16, _mm512_shldv_epi32, _mm512_slli_epi16, _mm512_slli_epi32, _mm512_sllv_epi16,
        _mm512_sllv_epi32, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_storeu_si512, _mm512_ternarylogic_epi32,
    };

    /// Only for a CPU that has AVX2.
    #[inline(always)]
    fn widen(bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]) {
        for at in [0, WIDENED / 2] {
            let (source, target) = (bytes[at..at + WIDENED / 2].as_ptr(), words[at..at + WIDENED / 2].as_mut_ptr());
            // SAFETY: 16 bytes are readable at one and 16 words writable at the other; the callers
            // have found AVX2.
            unsafe {
                let words = _mm256_cvtepu8_epi16(_mm_loadu_si128(source.cast::<__m128i>()));
                _mm256_storeu_si256(target.cast::<__m256i>(), words);
            }
        }
    }

    #[derive(Clone, Copy)]
    struct Avx2Lanes(());

    impl Lanes for Avx2Lanes {
        #[inline(always)]
        fn equal(self, a: &[u8; LANES], b: &[u8; LANES]) -> u64 {
            let half = |at: usize| {
                let (a, b) = (a[at..at + 32].as_ptr(), b[at..at + 32].as_ptr());
                // SAFETY: 32 bytes are readable at both; this type is only made where the CPU has
                // AVX2.
                let bits = unsafe {
                    let (a, b) = (_mm256_loadu_si256(a.cast::<__m256i>()), _mm256_loadu_si256(b.cast::<__m256i>()));
                    _mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b))
                };
                u64::from(bits.cast_unsigned())
            };
            half(0) | half(32) << 32
        }

        #[inline(always)]
        fn widen(self, bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]) {
            widen(bytes, words);
        }
    }

    #[derive(Clone, Copy)]
    struct Avx512Lanes(());

    impl Lanes for Avx512Lanes {
        #[inline(always)]
        fn equal(self, a: &[u8; LANES], b: &[u8; LANES]) -> u64 {
            // SAFETY: 64 bytes are readable at both; this type is only made where the CPU has
            // AVX-512BW.
            unsafe {
                let (a, b) = (_mm512_loadu_si512(a.as_ptr().cast::<__m512i>()), _mm512_loadu_si512(b.as_ptr().cast::<__m512i>()));
                _mm512_cmpeq_epi8_mask(a, b)
            }
        }

        #[inline(always)]
        fn widen(self, bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]) {
            widen(bytes, words);
        }
    }

    #[derive(Clone, Copy)]
    struct Avx512VbmiLanes(Avx512Lanes);

    impl Lanes for Avx512VbmiLanes {
        #[inline(always)]
        fn equal(self, a: &[u8; LANES], b: &[u8; LANES]) -> u64 {
            self.0.equal(a, b)
        }

        #[inline(always)]
        fn widen(self, bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]) {
            self.0.widen(bytes, words);
        }

        #[inline(always)]
        fn gather(
            self,
            table: &[[u8; 256]; PLANES],
            bytes: &[u8; LANES],
            literals: u64,
            sparse: [&[u8; LANES]; PLANES],
            taken: u64,
            dense: [&mut [u8; LANES]; PLANES],
        ) {
            // SAFETY: 64 bytes are readable or writable at each, four times as many at a table;
            // this type is only made where the CPU has AVX-512VBMI and VBMI2.
            unsafe {
                let bytes = _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>());
                let is_high = _mm512_movepi8_mask(bytes);
                for plane in 0..PLANES {
                    let entries = table[plane].as_ptr().cast::<__m512i>();
                    let [a, b, c, d] = [0, 1, 2, 3].map(|quarter| _mm512_loadu_si512(entries.add(quarter)));
                    // Of an index the lowest seven bits are looked at.
                    let found = _mm512_mask_blend_epi8(
                        is_high,
                        _mm512_permutex2var_epi8(a, bytes, b),
                        _mm512_permutex2var_epi8(c, bytes, d),
                    );
                    let sparse = _mm512_loadu_si512(sparse[plane].as_ptr().cast::<__m512i>());
                    let all = _mm512_mask_blend_epi8(taken, found, sparse);
                    let gathered = _mm512_maskz_compress_epi8(literals | taken, all);
                    _mm512_storeu_si512(dense[plane].as_mut_ptr().cast::<__m512i>(), gathered);
                }
            }
        }

        #[inline(always)]
        fn merge(self, planes: [&[u8; LANES]; PLANES], words: &mut [u64; WORDS], counts: &mut [u32; WORDS]) {
            /// a | (b & c)
            const A_OR_B_AND_C: i32 = 0xf8;
            /// (a & c) | (b & !c)
            const C_SELECTS_A_OR_B: i32 = 0xe4;
            // SAFETY: 64 bytes are readable at each plane, 16 words of 8 and of 4 bytes writable;
            // this type is only made where the CPU has AVX-512BW and VBMI2.
            unsafe {
                let [low, high, lengths] = planes.map(|plane| _mm512_loadu_si512(plane.as_ptr().cast::<__m512i>()));
                let zero = _mm512_setzero_si512();
                // Two lanes each, as 16 low and 16 high bits.
                let (low_byte, low_half) = (_mm512_set1_epi16(0xff), _mm512_set1_epi32(0xffff));
                let even = _mm512_ternarylogic_epi32::<A_OR_B_AND_C>(_mm512_slli_epi16::<8>(high), low, low_byte);
                let odd = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(_mm512_srli_epi16::<8>(low), high, low_byte);
                let shift = _mm512_and_si512(lengths, low_byte);
                let count = _mm512_add_epi16(shift, _mm512_srli_epi16::<8>(lengths));
                let low = _mm512_or_si512(even, _mm512_sllv_epi16(odd, shift));
                let high = _mm512_shldv_epi16(zero, odd, shift);
                // Four lanes each, as 32 low and 32 high bits.
                let even = _mm512_ternarylogic_epi32::<A_OR_B_AND_C>(_mm512_slli_epi32::<16>(high), low, low_half);
                let odd = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(_mm512_srli_epi32::<16>(low), high, low_half);
                let shift = _mm512_and_si512(count, low_half);
                let count = _mm512_add_epi32(shift, _mm512_srli_epi32::<16>(count));
                let low = _mm512_or_si512(even, _mm512_sllv_epi32(odd, shift));
                let high = _mm512_shldv_epi32(zero, odd, shift);
                let front = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                let back = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
                let words = words.as_mut_ptr().cast::<__m512i>();
                _mm512_storeu_si512(words, _mm512_permutex2var_epi32(low, front, high));
                _mm512_storeu_si512(words.add(1), _mm512_permutex2var_epi32(low, back, high));
                _mm512_storeu_si512(counts.as_mut_ptr().cast::<__m512i>(), count);
            }
        }
    }

    /// All of the kernel is inlined here and so compiled for these features. The caller has found
    /// them.
    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2Lanes(()))
    }

    /// As above.
    #[target_feature(enable = "avx512f,avx512bw,avx2,bmi1,bmi2,popcnt")]
    pub fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512Lanes(()))
    }

    /// As above.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,popcnt")]
    pub fn run_avx512_vbmi<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512VbmiLanes(Avx512Lanes(())))
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{LANES, Lanes, WIDENED};
    use std::arch::aarch64::{
        uint8x16_t, vandq_u8, vceqq_u8, vgetq_lane_u64, vld1_u8, vld1q_u8, vmovl_u8, vpaddq_u8, vreinterpretq_u64_u8, vst1q_u16,
    };

    /// A bit for each of eight bytes, twice.
    static WEIGHTS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

    #[derive(Clone, Copy)]
    pub struct NeonLanes(pub(super) ());

    impl Lanes for NeonLanes {
        #[inline(always)]
        fn equal(self, a: &[u8; LANES], b: &[u8; LANES]) -> u64 {
            // SAFETY: 16 bytes are readable at each; every aarch64 CPU has NEON.
            unsafe {
                let weights = vld1q_u8(WEIGHTS.as_ptr());
                let quarter = |at: usize| -> uint8x16_t {
                    let (a, b) = (vld1q_u8(a[at..at + 16].as_ptr()), vld1q_u8(b[at..at + 16].as_ptr()));
                    vandq_u8(vceqq_u8(a, b), weights)
                };
                // Adding neighbours three times leaves a byte for each eight: the bits are apart,
                // nothing carries.
                let low = vpaddq_u8(quarter(0), quarter(16));
                let high = vpaddq_u8(quarter(32), quarter(48));
                let sum = vpaddq_u8(low, high);
                vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(sum, sum)))
            }
        }

        #[inline(always)]
        fn widen(self, bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]) {
            for (bytes, words) in bytes.chunks_exact(8).zip(words.chunks_exact_mut(8)) {
                // SAFETY: eight bytes are readable at one and eight words writable at the other.
                unsafe { vst1q_u16(words.as_mut_ptr(), vmovl_u8(vld1_u8(bytes.as_ptr()))) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Masks<'b>(&'b [u8]);

    impl Kernel for Masks<'_> {
        type Output = Vec<u64>;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Vec<u64> {
            let block = |at: usize| self.0[at..].first_chunk::<LANES>().expect("64 bytes");
            (1..self.0.len() - LANES).map(|at| lanes.equal(block(at), block(at - 1))).collect()
        }
    }

    #[test]
    fn every_way_gives_the_same_bits() {
        // Few values, so that equal neighbours are common, and those that a carry could get wrong.
        let mut state = 7u64;
        let bytes: Vec<u8> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                [0, 1, 0x7f, 0x80, 0x81, 0xff][(state >> 40) as usize % 6]
            })
            .collect();
        let expected: Vec<u64> = (1..bytes.len() - LANES)
            .map(|at| (0..LANES).map(|i| u64::from(bytes[at + i] == bytes[at + i - 1]) << i).sum())
            .collect();
        for way in SimdLevel::available() {
            assert!(way.run(Masks(&bytes)) == expected, "{way:?}");
        }
    }

    /// What each of gathering and merging gives.
    struct Packed<'b>(&'b [u8]);

    impl Kernel for Packed<'_> {
        type Output = Vec<([[u8; LANES]; PLANES], [u64; WORDS], [u32; WORDS])>;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            let mut all = Vec::new();
            for block in self.0.windows(2 * LANES + 16).step_by(31) {
                let part = |at: usize| -> &[u8; LANES] { block[at..].first_chunk().expect("64 bytes") };
                let word = |at: usize| u64::from_le_bytes(*block[at..].first_chunk().expect("8 bytes"));
                // Of either fewer, as many, or more than half.
                let (literals, taken) = (word(128) & (word(3) | word(11)), !word(128) & word(136));
                // At most 15 bits a lane, and none beyond those that are said to be there.
                let lengths: [u8; 256] = std::array::from_fn(|index| self.0[index] % 16);
                let code =
                    |index: usize| u16::from_le_bytes([self.0[index + 256], self.0[index + 512]]) & ((1 << lengths[index]) - 1);
                let table = [std::array::from_fn(|i| code(i) as u8), std::array::from_fn(|i| (code(i) >> 8) as u8), lengths];
                let sparse_lengths: [u8; LANES] = std::array::from_fn(|lane| part(64)[lane] % 16);
                let mask = |lane: usize| (1u16 << sparse_lengths[lane]) - 1;
                let sparse_low = std::array::from_fn(|lane| part(9)[lane] & mask(lane) as u8);
                let sparse_high = std::array::from_fn(|lane| part(40)[lane] & (mask(lane) >> 8) as u8);
                let mut dense = [[0xa5; LANES]; PLANES];
                lanes.gather(&table, part(0), literals, [&sparse_low, &sparse_high, &sparse_lengths], taken, dense.each_mut());
                let (mut words, mut counts) = ([1; WORDS], [1; WORDS]);
                lanes.merge(dense.each_ref(), &mut words, &mut counts);
                all.push((dense, words, counts));
            }
            all
        }
    }

    #[test]
    fn every_way_packs_the_same_bits() {
        let mut state = 11u64;
        let bytes: Vec<u8> = (0..20_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let expected = SimdLevel(Kind::Portable).run(Packed(&bytes));
        assert!(expected.iter().any(|(dense, _, counts)| dense[2][40] > 0 && counts.iter().any(|count| *count > 50)));
        for way in SimdLevel::available() {
            assert!(way.run(Packed(&bytes)) == expected, "{way:?}");
        }
    }
}
