//! Comparing 64 bytes with 64 others, looking up and merging their codes, and transposing 64 rows
//! of 64 bytes, at once: SIMD where the CPU has it, and a portable twin that gives the same bits.
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
/// Codes that are packed have at most 12 bits: a code and its number of bits are 16.
pub const PACKED_BITS: u32 = 12;
/// Most bits of a word that packing makes of more than four codes.
const MOST_WORD_BITS: u32 = 56;

/// Bytes of a square that is transposed at once: as many rows as bytes in a row.
pub const SQUARE: usize = LANES * LANES;

/// A way to compare. Only this file makes the ones that need a CPU of a kind: whoever has one may
/// use it.
pub trait Lanes: Copy {
    /// Bit `i` of the result is set if byte `i` of both is the same.
    fn equal(self, a: &[u8; LANES], b: &[u8; LANES]) -> u64;

    /// Stores each byte as a word.
    fn widen(self, bytes: &[u8; WIDENED], words: &mut [u16; WIDENED]);

    /// Makes rows of [`LANES`] bytes the columns of as many rows.
    #[inline(always)]
    fn transpose(self, source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
        for (column, line) in target.chunks_exact_mut(LANES).enumerate() {
            line.iter_mut().zip(source[column..].iter().step_by(LANES)).for_each(|(to, from)| *to = *from);
        }
    }

    /// Puts the sums of all bytes up to each in their place, from `sum` on, mod 256. Gives the
    /// last.
    #[inline(always)]
    fn sums(self, bytes: &mut [u8; LANES], mut sum: u8) -> u8 {
        for byte in bytes {
            sum = sum.wrapping_add(*byte);
            *byte = sum;
        }
        sum
    }

    /// Tells the CPU that this line will be read soon.
    #[inline(always)]
    fn prefetch(self, _: &[u8; LANES]) {}

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

    /// Looks up the code of each byte: in the first table its low bits, in the second the high
    /// ones, and from the fifth bit on how many there are, at most [`PACKED_BITS`]. Merges each
    /// eight to a word if none gets more than 56 bits, else each four, and gives how many words
    /// that are.
    #[inline(always)]
    fn pack(self, table: &[[u8; 256]; 2], bytes: &[u8; LANES], words: &mut [u64; WORDS], counts: &mut [u64; WORDS]) -> usize {
        let [low, high] = table;
        for ((word, count), bytes) in words.iter_mut().zip(counts.iter_mut()).zip(bytes.as_chunks::<4>().0) {
            (*word, *count) = (0, 0);
            for byte in bytes {
                let code = u16::from_le_bytes([low[usize::from(*byte)], high[usize::from(*byte)]]);
                *word |= u64::from(code & ((1 << PACKED_BITS) - 1)) << *count;
                *count += u64::from(code >> PACKED_BITS);
            }
        }
        if counts.as_chunks::<2>().0.iter().any(|[a, b]| a + b > u64::from(MOST_WORD_BITS)) {
            return WORDS;
        }
        for index in 0..WORDS / 2 {
            words[index] = words[2 * index] | words[2 * index + 1] << counts[2 * index];
            counts[index] = counts[2 * index] + counts[2 * index + 1];
        }
        WORDS / 2
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
                && is_x86_feature_detected!("lzcnt")
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

    /// Whether [`Lanes::equal`] is quick in this way.
    pub fn compares(self) -> bool {
        self.0 != Kind::Portable
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

    // Every x86-64 CPU has SSE2.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn transpose(self, source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
        x86::transpose_sse2(source, target);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn sums(self, bytes: &mut [u8; LANES], sum: u8) -> u8 {
        x86::sums(bytes, sum)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, LANES, Lanes, MOST_WORD_BITS, PACKED_BITS, PLANES, SQUARE, WIDENED, WORDS};
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _MM_HINT_T0, _mm_add_epi8, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_prefetch, _mm_set1_epi8,
        _mm_setzero_si128, _mm_shuffle_epi32, _mm_shufflehi_epi16, _mm_slli_si128, _mm_storeu_si128, _mm_unpackhi_epi8,
        _mm_unpacklo_epi8, _mm256_castsi128_si256, _mm256_cmpeq_epi8, _mm256_cvtepu8_epi16, _mm256_inserti128_si256,
        _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_setzero_si256, _mm256_storeu_si256, _mm256_unpackhi_epi8,
        _mm256_unpacklo_epi8, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi8_mask,
        _mm512_cmpgt_epi64_mask, _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_maskz_compress_epi8, _mm512_movepi8_mask,
        _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_permutex2var_epi32, _mm512_permutex2var_epi64, _mm512_set1_epi16,
        _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setr_epi32, _mm512_setr_epi64, _mm512_setzero_si512, _mm512_shldv_epi16,
        _mm512_shldv_epi32, _mm512_slli_epi16, _mm512_slli_epi32, _mm512_slli_epi64, _mm512_sllv_epi16, _mm512_sllv_epi32,
        _mm512_sllv_epi64, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_srli_epi64, _mm512_storeu_si512,
        _mm512_ternarylogic_epi32,
    };

    /// Only what every x86-64 CPU has.
    #[inline(always)]
    pub fn sums(bytes: &mut [u8; LANES], sum: u8) -> u8 {
        // SAFETY: every x86-64 CPU has SSE2; 16 bytes are readable and writable at each quarter.
        unsafe {
            let mut last = _mm_set1_epi8(sum.cast_signed());
            for quarter in bytes.chunks_exact_mut(TILE) {
                let place = quarter.as_mut_ptr().cast::<__m128i>();
                let mut sums = _mm_loadu_si128(place);
                sums = _mm_add_epi8(sums, _mm_slli_si128::<1>(sums));
                sums = _mm_add_epi8(sums, _mm_slli_si128::<2>(sums));
                sums = _mm_add_epi8(sums, _mm_slli_si128::<4>(sums));
                sums = _mm_add_epi8(sums, _mm_slli_si128::<8>(sums));
                sums = _mm_add_epi8(sums, last);
                _mm_storeu_si128(place, sums);
                // The last byte everywhere.
                let high = _mm_unpackhi_epi8(sums, sums);
                last = _mm_shuffle_epi32::<0xff>(_mm_shufflehi_epi16::<0xff>(high));
            }
            _mm_cvtsi128_si32(last) as u8
        }
    }

    /// Only what every x86-64 CPU has.
    #[inline(always)]
    fn prefetch(line: &[u8; LANES]) {
        // SAFETY: every x86-64 CPU has SSE; nothing is read or changed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast::<i8>()) };
    }

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

    /// Rows and columns of a tile: as many as a register has bytes.
    const TILE: usize = 16;

    pub fn transpose_sse2(source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
        for (row, column) in (0..LANES).step_by(TILE).flat_map(|row| (0..LANES).step_by(TILE).map(move |column| (row, column))) {
            // SAFETY: every x86-64 CPU has SSE2; 16 bytes are readable, and writable, at the place
            // of each row of a tile, which is in the square.
            unsafe {
                let from = source.as_ptr().add(row * LANES + column);
                let mut rows = [_mm_setzero_si128(); TILE];
                for (index, row) in rows.iter_mut().enumerate() {
                    *row = _mm_loadu_si128(from.add(index * LANES).cast::<__m128i>());
                }
                for _ in 0..TILE.ilog2() {
                    let mut next = rows;
                    for index in 0..TILE / 2 {
                        next[2 * index] = _mm_unpacklo_epi8(rows[index], rows[index + TILE / 2]);
                        next[2 * index + 1] = _mm_unpackhi_epi8(rows[index], rows[index + TILE / 2]);
                    }
                    rows = next;
                }
                let to = target.as_mut_ptr().add(column * LANES + row);
                for (index, row) in rows.iter().enumerate() {
                    _mm_storeu_si128(to.add(index * LANES).cast::<__m128i>(), *row);
                }
            }
        }
    }

    /// Two tiles, one below the other, at once. Only for a CPU that has AVX2.
    #[inline(always)]
    fn transpose_avx2(source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
        for (row, column) in
            (0..LANES).step_by(2 * TILE).flat_map(|row| (0..LANES).step_by(TILE).map(move |column| (row, column)))
        {
            // SAFETY: the callers have found AVX2; 16 bytes are readable, and 32 writable, at the
            // place of each row of a tile, which is in the square.
            unsafe {
                let from = source.as_ptr().add(row * LANES + column);
                let mut rows = [_mm256_setzero_si256(); TILE];
                for (index, both) in rows.iter_mut().enumerate() {
                    let upper = _mm_loadu_si128(from.add(index * LANES).cast::<__m128i>());
                    let lower = _mm_loadu_si128(from.add((index + TILE) * LANES).cast::<__m128i>());
                    *both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(upper), lower);
                }
                for _ in 0..TILE.ilog2() {
                    let mut next = rows;
                    for index in 0..TILE / 2 {
                        next[2 * index] = _mm256_unpacklo_epi8(rows[index], rows[index + TILE / 2]);
                        next[2 * index + 1] = _mm256_unpackhi_epi8(rows[index], rows[index + TILE / 2]);
                    }
                    rows = next;
                }
                let to = target.as_mut_ptr().add(column * LANES + row);
                for (index, row) in rows.iter().enumerate() {
                    _mm256_storeu_si256(to.add(index * LANES).cast::<__m256i>(), *row);
                }
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

        #[inline(always)]
        fn sums(self, bytes: &mut [u8; LANES], sum: u8) -> u8 {
            sums(bytes, sum)
        }

        #[inline(always)]
        fn prefetch(self, line: &[u8; LANES]) {
            prefetch(line);
        }

        #[inline(always)]
        fn transpose(self, source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
            transpose_avx2(source, target);
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

        #[inline(always)]
        fn sums(self, bytes: &mut [u8; LANES], sum: u8) -> u8 {
            sums(bytes, sum)
        }

        #[inline(always)]
        fn prefetch(self, line: &[u8; LANES]) {
            prefetch(line);
        }

        #[inline(always)]
        fn transpose(self, source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
            transpose_avx2(source, target);
        }
    }

    /// (a & c) | (b & !c)
    const C_SELECTS_A_OR_B: i32 = 0xe4;

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
        fn transpose(self, source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
            self.0.transpose(source, target);
        }

        #[inline(always)]
        fn sums(self, bytes: &mut [u8; LANES], sum: u8) -> u8 {
            sums(bytes, sum)
        }

        #[inline(always)]
        fn prefetch(self, line: &[u8; LANES]) {
            prefetch(line);
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
        fn pack(self, table: &[[u8; 256]; 2], bytes: &[u8; LANES], words: &mut [u64; WORDS], counts: &mut [u64; WORDS]) -> usize {
            // SAFETY: 64 bytes are readable at `bytes`, four times as many at a table, 16 words
            // writable at each of the others; this type is only made where the CPU has AVX-512BW,
            // VBMI and VBMI2.
            unsafe {
                let bytes = _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>());
                let is_high = _mm512_movepi8_mask(bytes);
                let mut planes = [_mm512_setzero_si512(); 2];
                for (plane, table) in planes.iter_mut().zip(table) {
                    let entries = table.as_ptr().cast::<__m512i>();
                    let [a, b, c, d] = [0, 1, 2, 3].map(|quarter| _mm512_loadu_si512(entries.add(quarter)));
                    // Of an index the lowest seven bits are looked at.
                    *plane = _mm512_mask_blend_epi8(
                        is_high,
                        _mm512_permutex2var_epi8(a, bytes, b),
                        _mm512_permutex2var_epi8(c, bytes, d),
                    );
                }
                let [low, high] = planes;
                let (low_byte, low_half) = (_mm512_set1_epi16(0xff), _mm512_set1_epi32(0xffff));
                let code_bits = _mm512_set1_epi16((1 << PACKED_BITS) - 1);
                let zero = _mm512_setzero_si512();
                // Even and odd lanes, as codes and their numbers of bits.
                let even = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(low, _mm512_slli_epi16::<8>(high), low_byte);
                let odd = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(_mm512_srli_epi16::<8>(low), high, low_byte);
                let shift = _mm512_srli_epi16::<{ PACKED_BITS }>(even);
                let count = _mm512_add_epi16(shift, _mm512_srli_epi16::<{ PACKED_BITS }>(odd));
                let (even, odd) = (_mm512_and_si512(even, code_bits), _mm512_and_si512(odd, code_bits));
                let low = _mm512_or_si512(even, _mm512_sllv_epi16(odd, shift));
                let high = _mm512_shldv_epi16(zero, odd, shift);
                // Four lanes each, as 32 low and 32 high bits: two lanes are in a half of each.
                let even = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(low, _mm512_slli_epi32::<16>(high), low_half);
                let odd = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(_mm512_srli_epi32::<16>(low), high, low_half);
                let shift = _mm512_and_si512(count, low_half);
                let count = _mm512_add_epi32(shift, _mm512_srli_epi32::<16>(count));
                let low = _mm512_or_si512(even, _mm512_sllv_epi32(odd, shift));
                let high = _mm512_shldv_epi32(zero, odd, shift);
                // Words, even and odd ones: their halves are side by side.
                let low_word = _mm512_set1_epi64(0xffff_ffff);
                let even = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(low, _mm512_slli_epi64::<32>(high), low_word);
                let odd = _mm512_ternarylogic_epi32::<C_SELECTS_A_OR_B>(_mm512_srli_epi64::<32>(low), high, low_word);
                let (even_count, odd_count) = (_mm512_and_si512(count, low_word), _mm512_srli_epi64::<32>(count));
                let both_count = _mm512_add_epi64(even_count, odd_count);
                let (words, counts) = (words.as_mut_ptr().cast::<__m512i>(), counts.as_mut_ptr().cast::<__m512i>());
                if _mm512_cmpgt_epi64_mask(both_count, _mm512_set1_epi64(i64::from(MOST_WORD_BITS))) == 0 {
                    _mm512_storeu_si512(words, _mm512_or_si512(even, _mm512_sllv_epi64(odd, even_count)));
                    _mm512_storeu_si512(counts, both_count);
                    return WORDS / 2;
                }
                let (front, back) = (_mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15));
                _mm512_storeu_si512(words, _mm512_permutex2var_epi64(even, front, odd));
                _mm512_storeu_si512(words.add(1), _mm512_permutex2var_epi64(even, back, odd));
                _mm512_storeu_si512(counts, _mm512_permutex2var_epi64(even_count, front, odd_count));
                _mm512_storeu_si512(counts.add(1), _mm512_permutex2var_epi64(even_count, back, odd_count));
                WORDS
            }
        }

        #[inline(always)]
        fn merge(self, planes: [&[u8; LANES]; PLANES], words: &mut [u64; WORDS], counts: &mut [u32; WORDS]) {
            /// a | (b & c)
            const A_OR_B_AND_C: i32 = 0xf8;
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
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2Lanes(()))
    }

    /// As above.
    #[target_feature(enable = "avx512f,avx512bw,avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512Lanes(()))
    }

    /// As above.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn run_avx512_vbmi<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512VbmiLanes(Avx512Lanes(())))
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{LANES, Lanes, SQUARE, WIDENED};
    use std::arch::aarch64::{
        uint8x16_t, vandq_u8, vceqq_u8, vdupq_n_u8, vgetq_lane_u64, vld1_u8, vld1q_u8, vmovl_u8, vpaddq_u8, vreinterpretq_u64_u8,
        vst1q_u8, vst1q_u16, vzip1q_u8, vzip2q_u8,
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

        #[inline(always)]
        fn transpose(self, source: &[u8; SQUARE], target: &mut [u8; SQUARE]) {
            /// Rows and columns of a tile: as many as a register has bytes.
            const TILE: usize = 16;
            for (row, column) in
                (0..LANES).step_by(TILE).flat_map(|row| (0..LANES).step_by(TILE).map(move |column| (row, column)))
            {
                // SAFETY: every aarch64 CPU has NEON; 16 bytes are readable, and writable, at the
                // place of each row of a tile, which is in the square.
                unsafe {
                    let from = source.as_ptr().add(row * LANES + column);
                    let mut rows = [vdupq_n_u8(0); TILE];
                    for (index, row) in rows.iter_mut().enumerate() {
                        *row = vld1q_u8(from.add(index * LANES));
                    }
                    for _ in 0..TILE.ilog2() {
                        let mut next = rows;
                        for index in 0..TILE / 2 {
                            next[2 * index] = vzip1q_u8(rows[index], rows[index + TILE / 2]);
                            next[2 * index + 1] = vzip2q_u8(rows[index], rows[index + TILE / 2]);
                        }
                        rows = next;
                    }
                    let to = target.as_mut_ptr().add(column * LANES + row);
                    rows.iter().enumerate().for_each(|(index, row)| vst1q_u8(to.add(index * LANES), *row));
                }
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

    /// What packing gives: of each block, all words.
    struct Codes<'b>(&'b [u8], &'b [[u8; 256]; 2]);

    impl Kernel for Codes<'_> {
        type Output = Vec<(Vec<u64>, Vec<u64>)>;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            let mut all = Vec::new();
            for block in self.0.as_chunks::<LANES>().0 {
                let (mut words, mut counts) = ([1; WORDS], [1; WORDS]);
                let count = lanes.pack(self.1, block, &mut words, &mut counts);
                all.push((words[..count].to_vec(), counts[..count].to_vec()));
            }
            all
        }
    }

    #[test]
    fn every_way_packs_the_same_words() {
        let mut state = 13u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u16
        };
        let bytes: Vec<u8> = (0..20_000).map(|at| random() as u8 & if at < 10_000 { 0x1f } else { 0xff }).collect();
        // Short codes for some bytes, up to the longest for others.
        let entry = |byte: usize, bits: u16| {
            let count = 1 + if byte < 32 { bits % 7 } else { bits % PACKED_BITS as u16 };
            (bits >> 4 & ((1 << count) - 1)) | count << PACKED_BITS
        };
        let entries: Vec<u16> = (0..256).map(|byte| entry(byte, random())).collect();
        let table = [0, 8].map(|shift| std::array::from_fn(|byte| (entries[byte] >> shift) as u8));
        let expected = Codes(&bytes, &table).run(NoLanes);
        let is_of = |count: usize| expected.iter().any(|(words, _)| words.len() == count);
        assert!(is_of(WORDS) && is_of(WORDS / 2));
        for ((words, counts), block) in expected.iter().zip(bytes.as_chunks::<LANES>().0) {
            let bits = |count: u64, word: u64| (0..count).map(move |bit| word >> bit & 1);
            let found: Vec<u64> = words.iter().zip(counts).flat_map(|(word, count)| bits(*count, *word)).collect();
            let codes = block.iter().map(|byte| u64::from(entries[usize::from(*byte)]));
            let codes: Vec<u64> = codes.flat_map(|entry| bits(entry >> PACKED_BITS, entry)).collect();
            assert!(found == codes);
        }
        for way in SimdLevel::available() {
            assert!(way.run(Codes(&bytes, &table)) == expected, "{way:?}");
        }
    }

    struct Transposed<'b>(&'b [u8; SQUARE]);

    impl Kernel for Transposed<'_> {
        type Output = Vec<u8>;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Vec<u8> {
            let mut target = [0xa5; SQUARE];
            lanes.transpose(self.0, &mut target);
            target.to_vec()
        }
    }

    /// What a CPU with nothing of its own uses.
    #[derive(Clone, Copy)]
    struct NoLanes;

    impl Lanes for NoLanes {
        fn equal(self, _: &[u8; LANES], _: &[u8; LANES]) -> u64 {
            0
        }

        fn widen(self, _: &[u8; WIDENED], _: &mut [u16; WIDENED]) {}
    }

    struct Sums<'b>(&'b [u8]);

    impl Kernel for Sums<'_> {
        type Output = Vec<u8>;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Vec<u8> {
            let (mut bytes, mut sum) = (self.0.to_vec(), 0);
            bytes.as_chunks_mut().0.iter_mut().for_each(|block| sum = lanes.sums(block, sum));
            bytes.push(sum);
            bytes
        }
    }

    #[test]
    fn every_way_sums_up() {
        let bytes: Vec<u8> = (0..100 * LANES).map(|at| (at * at / 7) as u8).collect();
        let sum = |sum: &mut u8, byte: &u8| {
            *sum = sum.wrapping_add(*byte);
            Some(*sum)
        };
        let mut expected: Vec<u8> = bytes.iter().scan(0, sum).collect();
        expected.push(expected[bytes.len() - 1]);
        assert!(Sums(&bytes).run(NoLanes) == expected);
        for way in SimdLevel::available() {
            assert!(way.run(Sums(&bytes)) == expected, "{way:?}");
        }
    }

    #[test]
    fn every_way_transposes() {
        // No two bytes of a row or of a column are the same.
        let square = std::array::from_fn(|at| (at / LANES * 5 + at % LANES * 3) as u8);
        let expected: Vec<u8> = (0..SQUARE).map(|at| square[at % LANES * LANES + at / LANES]).collect();
        assert!(Transposed(&square).run(NoLanes) == expected);
        for way in SimdLevel::available() {
            assert!(way.run(Transposed(&square)) == expected, "{way:?}");
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
