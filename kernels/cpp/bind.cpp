// torch.ops.ramify.*: the operations of this folder, through torch's stable ABI.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "attention.h"
#include "attention_plan.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

int32_t dtype_of(const Tensor& tensor, const char* name) {
    const ScalarType type = tensor.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, name, " must be float32 or bfloat16");
    return type == ScalarType::Float ? RAMIFY_FP32 : RAMIFY_BF16;
}

int32_t pool_dtype(const Tensor& pool) {
    return pool.scalar_type() == ScalarType::Char ? int32_t(RAMIFY_INT8) : dtype_of(pool, "k_pool");
}

int64_t best_level() { return ramify_best_level(); }

int64_t attention_bytes() { return ramify_attention_bytes(); }

// Shapes are those of kernels/attention/interface.py. spans: int32 [4, spans]: query_start, query_length, start, row.
void attention(const Tensor& q, const Tensor& k_pool, const Tensor& v_pool, const Tensor& page_table, int64_t page_size,
               const Tensor& spans, const Tensor& sharing, double scale, int64_t window, double soft_cap, bool causal,
               int64_t level, int64_t cost_of_piece, int64_t cost_of_joining, Tensor out) {
    STD_TORCH_CHECK(q.dim() == 3 && k_pool.dim() == 3 && v_pool.dim() == 3 && out.dim() == 3,
                    "q, pools and out must have 3 dimensions");
    const int64_t tokens = q.size(0), heads = q.size(1), head_dim = q.size(2), kv_heads = k_pool.size(1);
    STD_TORCH_CHECK(head_dim % 16 == 0 && head_dim >= 16 && head_dim <= 256,
                    "head_dim must be a multiple of 16 up to 256, not ", head_dim);
    STD_TORCH_CHECK(kv_heads > 0 && heads % kv_heads == 0, heads, " query heads do not divide into ", kv_heads, " KV heads");
    STD_TORCH_CHECK(tokens == 0 || (q.stride(2) == 1 && q.stride(1) == head_dim),
                    "the last two dimensions of q must be contiguous");
    STD_TORCH_CHECK(k_pool.is_contiguous() && v_pool.is_contiguous() && out.is_contiguous(),
                    "pools and out must be contiguous");
    const int32_t kv_dtype = pool_dtype(k_pool);
    const int64_t kv_row = head_dim + (kv_dtype == RAMIFY_INT8 ? RAMIFY_SCALE_BYTES : 0);
    STD_TORCH_CHECK(k_pool.size(2) == kv_row && v_pool.size(2) == kv_row && v_pool.size(1) == kv_heads &&
                        v_pool.size(0) == k_pool.size(0),
                    "pools must be [slots, kv_heads, ", kv_row, "]");
    STD_TORCH_CHECK(out.size(0) == tokens && out.size(1) == heads && out.size(2) == head_dim &&
                        out.scalar_type() == q.scalar_type(),
                    "out must have q's shape and dtype");
    STD_TORCH_CHECK(level >= 0 && level <= ramify_best_level(), "this CPU has no level ", level);
    STD_TORCH_CHECK(window >= 0, "window must not be negative");
    STD_TORCH_CHECK(cost_of_piece >= 0 && cost_of_joining >= 0, "costs must not be negative");

    RamifyAttention call = {};
    call.q = q.const_data_ptr();
    call.q_stride = tokens ? q.stride(0) : 0;
    call.out = out.mutable_data_ptr();
    call.k_pool = k_pool.const_data_ptr();
    call.v_pool = v_pool.const_data_ptr();
    call.slots = k_pool.size(0);
    call.q_dtype = dtype_of(q, "q");
    call.kv_dtype = kv_dtype;
    STD_TORCH_CHECK(v_pool.scalar_type() == k_pool.scalar_type(), "both pools must have one dtype");
    call.num_heads = static_cast<int32_t>(heads);
    call.num_kv_heads = static_cast<int32_t>(kv_heads);
    call.head_dim = static_cast<int32_t>(head_dim);
    ramify::set_plan(page_table, page_size, spans, sharing, tokens, call);
    call.cost_of_piece = cost_of_piece;
    call.cost_of_joining = cost_of_joining;
    call.scale = static_cast<float>(scale);
    call.window = static_cast<int32_t>(window);
    call.soft_cap = static_cast<float>(soft_cap);
    call.causal = causal;
    call.level = static_cast<int32_t>(level);
    uint32_t threads = 1;
    TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&threads));
    call.threads = static_cast<int32_t>(threads);
    STD_TORCH_CHECK(ramify_attention(&call) == 0, "the page table names a page that is not in the pool");
}

}  // namespace

STABLE_TORCH_LIBRARY(ramify, m) {
    m.def("best_level() -> int");
    m.def("attention_bytes() -> int");
    m.def(
        "attention(Tensor q, Tensor k_pool, Tensor v_pool, Tensor page_table, int page_size, Tensor spans, "
        "Tensor sharing, float scale, int window, float soft_cap, bool causal, int level, int cost_of_piece, "
        "int cost_of_joining, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CompositeExplicitAutograd, m) {
    m.impl("best_level", TORCH_BOX(&best_level));
    m.impl("attention_bytes", TORCH_BOX(&attention_bytes));
}

STABLE_TORCH_LIBRARY_IMPL(ramify, CPU, m) {
    m.impl("attention", TORCH_BOX(&attention));
}
