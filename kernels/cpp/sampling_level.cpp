// Passes over one row of logits, for one set of instructions. The steps and their order are those of
// kernels/sampling/reference.py, so the bits are too.
#include "sampling.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#if RAMIFY_LEVEL < 3 && (RAMIFY_LEVEL == 0 || defined(__x86_64__))

#include "level_begin.inc"
#include "lanes.inc"

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr int64_t BLOCK = RAMIFY_BLOCK;
constexpr int64_t SCANNED = 2048;  // whole blocks; ids among which the first of the largest is looked for again

static inline float value(const float* p) { return *p; }
static inline float value(const uint16_t* p) { return as<float>(static_cast<uint32_t>(*p) << 16); }

template <class T>
static RamifyBest scan_all(const T* logits, int64_t first, int64_t last) {  // as NumPy's argmax
    RamifyBest best = {-INF, first};
    for (int64_t i = first; i < last; i++) {
        const float x = value(logits + i);
        if (std::isnan(x)) return {x, i};
        if (x > best.value) best = {x, i};
    }
    return best;
}

template <class T>
static RamifyBest scan(const void* data, int64_t first, int64_t last) {
    const T* logits = static_cast<const T*>(data);
    int64_t place = first;
    float best = -INF;
    Ints nan = {};
    bool any_nan = false;
    for (int64_t start = first; start < last; start += SCANNED) {
        const int64_t end = start + SCANNED < last ? start + SCANNED : last;
        Lanes most = all(-INF);
        int64_t i = start;
        for (; i + LANES <= end; i += LANES) {
            const Lanes x = read(logits + i);
            most = larger(most, x);
            nan |= x != x;
        }
        float found = top(most);
        for (; i < end; i++) {
            const float x = value(logits + i);
            found = x > found ? x : found;
            any_nan |= x != x;
        }
        if (found > best) best = found, place = start;
    }
    for (int i = 0; i < LANES; i++) any_nan |= nan[i] != 0;
    if (any_nan) return scan_all(logits, first, last);
    while (place < last && value(logits + place) != best) place++;
    return {best, place < last ? place : first};
}

// The first of `piece` is id `first`; all four work in place.
static void add_bias(const RamifyDraw& draw, int64_t first, int64_t count, float* piece) {
    for (int64_t b = 0; b < draw.biases; b++) {
        const int64_t i = draw.bias_ids[b] - first;
        if (i >= 0 && i < count) piece[i] += draw.bias_values[b];
    }
}

static void penalize(const RamifyDraw& draw, int64_t first, int64_t count, float* piece) {
    const int32_t* counts = draw.counts + first;
    const uint8_t* in_prompt = draw.in_prompt + first;
    for (int64_t start = 0; start < count; start += LANES) {
        const int64_t end = start + LANES < count ? start + LANES : count;
        if (end - start == LANES) {
            uint64_t seen[10];
            std::memcpy(seen, counts + start, 64);
            std::memcpy(seen + 8, in_prompt + start, 16);
            uint64_t any = 0;
            for (uint64_t some : seen) any |= some;
            if (!any) continue;  // nearly everywhere
        }
        for (int64_t i = start; i < end; i++) {
            if (counts[i] <= 0 && !in_prompt[i]) continue;
            float x = piece[i];
            x = x < 0 ? x * draw.repetition : x / draw.repetition;
            x -= draw.frequency * static_cast<float>(counts[i]);
            piece[i] = x - draw.presence * static_cast<float>(counts[i] > 0);
        }
    }
}

static void ban(const RamifyDraw& draw, int64_t first, int64_t count, float* piece) {
    for (int64_t b = 0; b < draw.banned; b++) {
        const int64_t i = draw.banned_ids[b] - first;
        if (i >= 0 && i < count) piece[i] = -INF;
    }
}

static inline Lanes allowed(uint32_t bits, Lanes x) {  // 16 bits
#if RAMIFY_LEVEL >= 2
    return as<Lanes>(_mm512_mask_blend_ps(static_cast<__mmask16>(bits), as<__m512>(all(-INF)), as<__m512>(x)));
#else
    const Ints bit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    const Ints set = (Ints{} + static_cast<int32_t>(bits & 0xffff)) & bit;
    return set != 0 ? x : all(-INF);
#endif
}

static void forbid(const RamifyDraw& draw, int64_t first, int64_t count, float* piece) {
    const int32_t* mask = draw.mask + first / 32;
    const int64_t words = draw.words - first / 32;
    for (int64_t word = 0; word * 32 < count; word++) {
        const uint32_t bits = word < words ? static_cast<uint32_t>(mask[word]) : 0;
        float* p = piece + word * 32;
        write(p, allowed(bits, read(p)));
        write(p + LANES, allowed(bits >> 16, read(p + LANES)));
    }
}

static bool forbids_all(const RamifyDraw& draw, int64_t first, int64_t count) {
    int32_t any = 0;
    for (int64_t word = first / 32; word < draw.words && word * 32 < first + count; word++) any |= draw.mask[word];
    return !any;
}

template <class T>
static RamifyBest edit(const RamifyDraw& draw, int64_t vocab, int64_t first, int64_t last, float* edited) {
    const T* logits = static_cast<const T*>(draw.logits);
    RamifyBest best = {-INF, first};
    alignas(64) float piece[SCANNED];  // every step finds it in the nearest cache
    for (int64_t start = first; start < last; start += SCANNED) {
        const int64_t size = start + SCANNED < last ? SCANNED : last - start;
        const int64_t count = start + size < vocab ? size : vocab - start;
        if (draw.mask && forbids_all(draw, start, count)) {
            for (int64_t i = 0; edited && i < size; i += LANES) write(edited + start + i, all(-INF));
            continue;
        }
        for (int64_t i = 0; i < count; i += LANES) write(piece + i, read(logits + start + i, count - i));
        for (int64_t i = count; i < size; i++) piece[i] = -INF;
        if (draw.biases) add_bias(draw, start, count, piece);
        if (draw.counts) penalize(draw, start, count, piece);
        if (draw.banned) ban(draw, start, count, piece);
        if (draw.mask) forbid(draw, start, size, piece);
        if (edited) std::memcpy(edited + start, piece, sizeof(float) * size);
        const RamifyBest found = scan<float>(piece, 0, count);
        if (std::isnan(best.value) || !(std::isnan(found.value) || found.value > best.value)) continue;
        best = {found.value, start + found.id};
    }
    return best;
}

template <class T>
static inline const T* whole_block(const RamifyWeighed& row, int64_t block, T* spare) {  // the last one is filled up with -inf
    const T* logits = static_cast<const T*>(row.logits) + block * BLOCK;
    const int64_t count = row.vocab - block * BLOCK;
    if (count >= BLOCK) return logits;
    for (int i = 0; i < BLOCK; i += LANES) write(spare + i, all(-INF));
    if (count > 0) std::memcpy(spare, logits, sizeof(T) * count);
    return spare;
}

template <class T>
static inline void weights_of(const RamifyWeighed& row, int64_t block, Lanes (&w)[8]) {
    T spare[BLOCK];
    const T* logits = whole_block(row, block, spare);
    for (int i = 0; i < 8; i++) w[i] = exp_below_zero((read(logits + i * LANES) - row.largest) * row.inverse_temperature);
}

static inline float sum_of_block(const Lanes (&w)[8]) {  // by halves
    return sum(((w[0] + w[4]) + (w[2] + w[6])) + ((w[1] + w[5]) + (w[3] + w[7])));
}

template <class T>
static void weigh(const RamifyWeighed& row, int64_t first, int64_t last, float* sums, float* largest) {
    for (int64_t block = first; block < last; block++) {
        Lanes w[8];
        weights_of<T>(row, block, w);
        sums[block] = sum_of_block(w);
        Lanes most = w[0];
        for (int i = 1; i < 8; i++) most = larger(most, w[i]);
        largest[block] = top(most);
    }
}

template <class T>
static void block(const RamifyWeighed& row, int64_t block, float* weights) {
    Lanes w[8];
    weights_of<T>(row, block, w);
    for (int i = 0; i < 8; i++) write(weights + i * LANES, w[i]);
}

template <class T>
static int64_t collect(const RamifyWeighed& row, const float* largest, float least, float* out) {
    int64_t count = 0;
    for (int64_t b = 0; b * BLOCK < row.vocab; b++) {
        if (!(largest[b] >= least && largest[b] > 0)) continue;
        alignas(64) float weights[BLOCK];
        block<T>(row, b, weights);
        for (int i = 0; i < BLOCK; i++) {
            out[count] = weights[i];
            count += weights[i] >= least && weights[i] > 0;
        }
    }
    return count;
}

static float filter(float* weights, float least, float min_p, int64_t* equal) {
    Lanes w[8];
    Ints same = {};
    for (int i = 0; i < 8; i++) {
        w[i] = read(weights + i * LANES);
        same -= w[i] == least;
    }
    int64_t seen = 0;
    for (int i = 0; i < LANES; i++) seen += same[i];
    if (seen > *equal) {
        int64_t left = *equal;
        for (int i = 0; i < BLOCK; i++) {
            if (weights[i] == least && left-- <= 0) weights[i] = 0;
        }
        for (int i = 0; i < 8; i++) w[i] = read(weights + i * LANES);
    }
    *equal = seen > *equal ? 0 : *equal - seen;
    for (int i = 0; i < 8; i++) {
        w[i] = w[i] >= least ? w[i] : Lanes{};
        w[i] = w[i] < min_p ? Lanes{} : w[i];
        write(weights + i * LANES, w[i]);
    }
    return sum_of_block(w);
}

template <class T>
static inline void keys_of(const void* logits, int64_t vocab, int64_t block, Ints (&keys)[8]) {
    T spare[BLOCK];
    const T* from = whole_block(RamifyWeighed{logits, vocab, 0, 0}, block, spare);
    for (int i = 0; i < 8; i++) {
        const Ints bits = as<Ints>(read(from + i * LANES) + 0.0f);
        keys[i] = bits ^ ((bits >> 31) & 0x7fffffff);
    }
}

template <class T>
static void keys(const void* logits, int64_t vocab, int64_t block, int32_t* out) {
    Ints k[8];
    keys_of<T>(logits, vocab, block, k);
    std::memcpy(out, k, sizeof k);
}

template <class T>
static void key_maxima(const void* logits, int64_t vocab, int32_t* largest) {
    for (int64_t block = 0; block * BLOCK < vocab; block++) {
        Ints k[8];
        keys_of<T>(logits, vocab, block, k);
        for (int i = 1; i < 8; i++) k[0] = k[i] > k[0] ? k[i] : k[0];
        int32_t most = k[0][0];
        for (int i = 1; i < LANES; i++) most = k[0][i] > most ? k[0][i] : most;
        largest[block] = most;
    }
}

extern const RamifySampling SAMPLING;
const RamifySampling SAMPLING = {
    {scan<float>, scan<uint16_t>},   {edit<float>, edit<uint16_t>},       {weigh<float>, weigh<uint16_t>},
    {block<float>, block<uint16_t>}, {collect<float>, collect<uint16_t>}, filter,
    {key_maxima<float>, key_maxima<uint16_t>}, {keys<float>, keys<uint16_t>},
};

#include "level_end.inc"
#endif
