// torch.ops.ramify.add_rms_norm, rotate_and_write, silu_mul: shapes are checked here, rows are shared among threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "fused_rows.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

const RamifyFused& fused(int64_t level) {
    STD_TORCH_CHECK(level >= 0 && level <= ramify_best_level(), "this CPU has no level ", level);
    return ramify::fused_of(level);
}

int num_threads() {
    uint32_t threads = 1;
    TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
    return static_cast<int>(threads);
}

int dtype_of(const Tensor& tensor) {
    const ScalarType type = tensor.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, "tensors must be float32 or bfloat16");
    return type == ScalarType::Float ? RAMIFY_FP32 : RAMIFY_BF16;
}

// [rows, columns] of a dtype, rows contiguous in themselves.
void check_rows(const Tensor& tensor, const char* name, ScalarType type, int64_t rows, int64_t columns) {
    STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == rows && tensor.size(1) == columns && tensor.scalar_type() == type &&
                        (columns <= 1 || tensor.stride(1) == 1),
                    name, " must be [", rows, ", ", columns, "] in the other tensors' dtype, with contiguous rows");
}

void check_whole(const Tensor& tensor, const char* name, ScalarType type, int64_t count) {
    STD_TORCH_CHECK(tensor.numel() == count && tensor.is_contiguous() && tensor.scalar_type() == type, name,
                    " must be contiguous with ", count, " elements in the other tensors' dtype");
}

void add_rms_norm(Tensor x, const std::optional<Tensor>& delta, const Tensor& weight, double eps, int64_t level, Tensor out) {
    STD_TORCH_CHECK(x.dim() == 2, "x must have 2 dimensions");
    const int64_t rows = x.size(0), size = x.size(1);
    check_rows(x, "x", x.scalar_type(), rows, size);
    if (delta) check_rows(*delta, "delta", x.scalar_type(), rows, size);
    check_whole(weight, "weight", x.scalar_type(), size);
    check_whole(out, "out", x.scalar_type(), rows * size);
    const RamifyNorm call = {x.mutable_data_ptr(),
                             delta ? delta->const_data_ptr() : nullptr,
                             weight.const_data_ptr(),
                             out.mutable_data_ptr(),
                             size,
                             x.stride(0),
                             delta ? delta->stride(0) : 0,
                             eps};
    ramify::norm_rows(fused(level), dtype_of(x), call, rows, num_threads());
}

void rotate_and_write(const Tensor& qkv, const Tensor& turns, const std::optional<Tensor>& weight, double eps, Tensor k_pool,
                      Tensor v_pool, const Tensor& slots, int64_t level, Tensor q) {
    STD_TORCH_CHECK(q.dim() == 3 && k_pool.dim() == 3, "q and the pools must have 3 dimensions");
    const int64_t tokens = q.size(0), heads = q.size(1), head_dim = q.size(2), kv_heads = k_pool.size(1);
    const ScalarType type = qkv.scalar_type();
    STD_TORCH_CHECK(head_dim > 0 && head_dim % 2 == 0, "head_dim must be even, not ", head_dim);
    check_rows(qkv, "qkv", type, tokens, (heads + 2 * kv_heads) * head_dim);
    check_rows(turns, "turns", type, tokens, 2 * head_dim);
    if (weight) check_whole(*weight, "weight", type, (heads + kv_heads) * head_dim);
    check_whole(q, "q", type, tokens * heads * head_dim);
    const bool int8 = k_pool.scalar_type() == ScalarType::Char;
    STD_TORCH_CHECK(!int8 || head_dim <= RAMIFY_LARGEST_HEAD, "pools in int8 take a head_dim of at most ", RAMIFY_LARGEST_HEAD);
    const int64_t values = k_pool.size(0) * kv_heads * (head_dim + (int8 ? RAMIFY_SCALE_BYTES : 0));
    check_whole(k_pool, "k_pool", int8 ? ScalarType::Char : type, values);
    check_whole(v_pool, "v_pool", int8 ? ScalarType::Char : type, values);
    STD_TORCH_CHECK(slots.dim() == 1 && slots.size(0) == tokens && slots.scalar_type() == ScalarType::Long &&
                        slots.is_contiguous(),
                    "slots must be contiguous int64 [tokens]");
    RamifyRotate call = {};
    call.qkv = qkv.const_data_ptr();
    call.turns = turns.const_data_ptr();
    call.weight = weight ? weight->const_data_ptr() : nullptr;
    call.q = q.mutable_data_ptr();
    call.k_pool = k_pool.mutable_data_ptr();
    call.v_pool = v_pool.mutable_data_ptr();
    call.slots = static_cast<const int64_t*>(slots.const_data_ptr());
    call.qkv_stride = tokens ? qkv.stride(0) : 0;
    call.turns_stride = tokens ? turns.stride(0) : 0;
    call.heads = heads, call.kv_heads = kv_heads, call.head_dim = head_dim, call.eps = eps;
    for (int64_t i = 0; i < tokens; i++) {
        STD_TORCH_CHECK(call.slots[i] >= 0 && call.slots[i] < k_pool.size(0), "slot ", call.slots[i], " is not in the pool");
    }
    ramify::rotate_rows(fused(level), int8, dtype_of(qkv), call, tokens, num_threads());
}

void silu_mul(const Tensor& gate_up, int64_t level, Tensor out) {
    STD_TORCH_CHECK(out.dim() == 2, "out must have 2 dimensions");
    const int64_t rows = out.size(0), size = out.size(1);
    check_rows(gate_up, "gate_up", out.scalar_type(), rows, 2 * size);
    check_whole(out, "out", out.scalar_type(), rows * size);
    const RamifyGate call = {gate_up.const_data_ptr(), out.mutable_data_ptr(), size, rows ? gate_up.stride(0) : 0};
    ramify::gate_rows(fused(level), dtype_of(out), call, rows, num_threads());
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(ramify, m) {
    m.def("add_rms_norm(Tensor(a!) x, Tensor? delta, Tensor weight, float eps, int level, Tensor(b!) out) -> ()");
    m.def(
        "rotate_and_write(Tensor qkv, Tensor turns, Tensor? weight, float eps, Tensor(a!) k_pool, Tensor(b!) v_pool, "
        "Tensor slots, int level, Tensor(c!) q) -> ()");
    m.def("silu_mul(Tensor gate_up, int level, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CPU, m) {
    m.impl("add_rms_norm", TORCH_BOX(&add_rms_norm));
    m.impl("rotate_and_write", TORCH_BOX(&rotate_and_write));
    m.impl("silu_mul", TORCH_BOX(&silu_mul));
}
