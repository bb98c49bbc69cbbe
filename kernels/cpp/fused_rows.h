// The operations of fused.h over all rows of a call, shared among threads where there is enough of them.
#pragma once

#include "fused.h"
#include "scratch.h"

namespace ramify {

inline const RamifyFused& fused_of(int64_t level) {  // level: at most ramify_best_level()
#ifdef __x86_64__
    if (level >= 2) return level2::FUSED;
    if (level == 1) return level1::FUSED;
#endif
    return level0::FUSED;
}

// run(call, first, last) for all rows. size: elements of a row; work: nanoseconds an element, about.
template <class Call>
void over_rows(void (*run)(const Call&, int64_t, int64_t), const Call& call, int64_t rows, int64_t size, double work,
               int threads) {
    in_chunks(rows, 1 + 4096 / (size + 1), threads_for(work * rows * size, rows, threads),
              [&](int64_t first, int64_t last) { run(call, first, last); });
}

inline void norm_rows(const RamifyFused& fused, int dtype, const RamifyNorm& call, int64_t rows, int threads) {
    over_rows(fused.norm[dtype], call, rows, call.size, 0.2, threads);
}

// int8: the pools are.
inline void rotate_rows(const RamifyFused& fused, bool int8, int dtype, const RamifyRotate& call, int64_t rows, int threads) {
    over_rows((int8 ? fused.rotate_int8 : fused.rotate)[dtype], call, rows, (call.heads + call.kv_heads) * call.head_dim, 0.4, threads);
}

inline void gate_rows(const RamifyFused& fused, int dtype, const RamifyGate& call, int64_t rows, int threads) {
    over_rows(fused.gate[dtype], call, rows, call.size, 0.8, threads);
}

}  // namespace ramify
