// Attention within a tile: compiled once for each set of instructions, with RAMIFY_LEVEL=0, 1, ... (kernels/native.py).
#include "attention_level.h"

#if defined(__x86_64__) || RAMIFY_LEVEL == 0
namespace attention {

alignas(64) static const float ZEROS[256] = {};

#include "level_begin.inc"
#include "attention_int8.inc"
#include "attention_inner.inc"
#include "attention_tile.inc"
#include "level_end.inc"

}  // namespace attention
#endif
