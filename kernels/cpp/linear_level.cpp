// The inner loops of linear.cpp, once for each set of instructions: integers for levels 0 to 2 and AVX512-VNNI, bf16 for 3.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "linear.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

using namespace ramify_linear;

#if RAMIFY_LEVEL == 0 || (RAMIFY_LEVEL == 1 && defined(__x86_64__))  // ------------------------------- baseline, AVX2

namespace {
#if RAMIFY_LEVEL == 0
#define RAMIFY_NAME INTEGER_BASELINE
namespace level0 {}
namespace here = level0;
#else
#define RAMIFY_NAME INTEGER_AVX2
namespace level1 {}
namespace here = level1;
#endif
#include "level_begin.inc"
#include "linear_integers.inc"
#include "linear_product.inc"
#include "linear_quantize.inc"
#include "level_end.inc"
}  // namespace

const IntegerLevel ramify_linear::RAMIFY_NAME = {here::multiply<8>, here::multiply<4>, here::finish, here::quantize_x,
                                                 here::quantize_w};

#elif RAMIFY_LEVEL == 2 && defined(__x86_64__)  // ----------------------------------------------- AVX512, AVX512-VNNI

namespace {
#include "level_begin.inc"
#include "linear_integers.inc"
#include "linear_product.inc"
#include "linear_quantize.inc"
#include "level_end.inc"

#define RAMIFY_LEVEL 2
#define RAMIFY_VNNI
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif
namespace vnni {
using namespace level2;
#include "linear_integers.inc"
#include "linear_product.inc"
}  // namespace vnni
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
}  // namespace

const IntegerLevel ramify_linear::INTEGER_AVX512 = {level2::multiply<8>, level2::multiply<4>, level2::finish,
                                                    level2::quantize_x, level2::quantize_w};
const IntegerLevel ramify_linear::INTEGER_VNNI = {vnni::multiply<8>, vnni::multiply<4>, level2::finish, level2::quantize_x,
                                                  level2::quantize_w};

#elif RAMIFY_LEVEL == 3 && defined(__x86_64__)  // ---------------------------------------------------------- AVX512-BF16

namespace {
#include "level_begin.inc"
#include "linear_bf16.inc"
#include "level_end.inc"
}  // namespace

const DenseLevel ramify_linear::DENSE_AVX512_BF16 = {level3::multiply};

#endif
