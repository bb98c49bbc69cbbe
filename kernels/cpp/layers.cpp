// The loop of runtime/models/decoder.py, without a tensor between its operations.
//
//   y = norm(x);  each layer:  qkv(y) -> rotate and write -> attend -> o -> x += , y = norm
//                              gate_up(y) -> silu, mul -> down -> x += , y = norm
#include "layers.h"

#include <cstring>

#include "fused_rows.h"
#include "scratch.h"

namespace ramify_layers {
namespace {

thread_local ramify::Scratch call_scratch;

// What lies between the operations of a step, each contiguous. `rows`: tokens, or wanted rows where these are more.
struct Space {
    char *turns, *y, *qkv, *q, *attended, *delta, *gate_up, *gated, *wanted_x, *wanted_attended;

    Space(const Stack& stack, int64_t tokens, int64_t wanted) {
        const int64_t size = stack.dtype == RAMIFY_BF16 ? 2 : 4, rows = tokens > wanted ? tokens : wanted;
        const int64_t heads = stack.heads * stack.head_dim, all_heads = heads + 2 * stack.kv_heads * stack.head_dim;
        const int64_t counts[] = {tokens * 2 * stack.head_dim, rows * stack.hidden,    tokens * all_heads,  tokens * heads,
                                  tokens * heads,              rows * stack.hidden,    2 * rows * stack.inner,
                                  rows * stack.inner,          wanted * stack.hidden,  wanted * heads};
        char** places[] = {&turns, &y, &qkv, &q, &attended, &delta, &gate_up, &gated, &wanted_x, &wanted_attended};
        int64_t total = 0;
        for (int64_t count : counts) total += lines(count * size);
        char* memory = call_scratch.bytes(total);
        for (int i = 0; i < 10; i++) {
            *places[i] = memory;
            memory += lines(counts[i] * size);
        }
    }

    static int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }
};

class Run {
  public:
    Run(const Stack& stack, const Step& step)
        : stack_(stack), step_(step), fused_(ramify::fused_of(stack.fused_level)), size_(stack.dtype == RAMIFY_BF16 ? 2 : 4),
          space_(stack, step.tokens, step.num_wanted) {}

    int all_layers() {
        const int64_t width = stack_.heads * stack_.head_dim;
        gather(stack_.rope, step_.positions, step_.tokens, 2 * stack_.head_dim, space_.turns);
        norm(step_.x, nullptr, stack_.first_norm, step_.tokens, space_.y);
        for (size_t number = 0; number < stack_.layers.size(); number++) {
            const Layer& layer = stack_.layers[number];
            const bool last = number + 1 == stack_.layers.size();
            const Pools::Layer& pools = step_.pools->layers[number];
            write_keys(layer, pools);
            if (last && step_.num_wanted == 0) return 0;
            if (attend(layer, pools) != 0) return 1;
            if (!last) {
                finish(layer, step_.x, space_.attended, step_.tokens, space_.y);
                continue;
            }
            // Nothing but the wanted rows is needed after the last layer has written its K and V.
            gather(step_.x, step_.wanted, step_.num_wanted, stack_.hidden, space_.wanted_x);
            gather(space_.attended, step_.wanted, step_.num_wanted, width, space_.wanted_attended);
            finish(layer, space_.wanted_x, space_.wanted_attended, step_.num_wanted, step_.out);
        }
        return 0;
    }

  private:
    void write_keys(const Layer& layer, const Pools::Layer& pools) {
        layer.qkv.multiply(space_.y, step_.tokens, space_.qkv, step_.threads);
        RamifyRotate call = {};
        call.qkv = space_.qkv, call.turns = space_.turns, call.weight = layer.qk_norm;
        call.q = space_.q, call.k_pool = pools.k, call.v_pool = pools.v, call.slots = step_.slots;
        call.qkv_stride = layer.qkv.outputs(), call.turns_stride = 2 * stack_.head_dim;
        call.heads = stack_.heads, call.kv_heads = stack_.kv_heads, call.head_dim = stack_.head_dim, call.eps = stack_.eps;
        ramify::rotate_rows(fused_, step_.pools->dtype == RAMIFY_INT8, stack_.dtype, call, step_.tokens, step_.threads);
    }

    int attend(const Layer& layer, const Pools::Layer& pools) {
        const Spec& spec = stack_.specs[layer.spec];
        RamifyAttention call = step_.plan;
        call.q = space_.q, call.q_stride = stack_.heads * stack_.head_dim, call.out = space_.attended;
        call.k_pool = pools.k, call.v_pool = pools.v, call.slots = step_.pools->slots;
        call.q_dtype = stack_.dtype, call.kv_dtype = step_.pools->dtype;
        call.num_heads = static_cast<int32_t>(stack_.heads), call.num_kv_heads = static_cast<int32_t>(stack_.kv_heads);
        call.head_dim = static_cast<int32_t>(stack_.head_dim);
        call.scale = spec.scale, call.window = spec.window, call.soft_cap = spec.soft_cap, call.causal = spec.causal;
        call.cost_of_piece = spec.cost_of_piece, call.cost_of_joining = spec.cost_of_joining;
        call.level = stack_.attention_level, call.threads = step_.threads;
        return ramify_attention(&call);
    }

    // Adds the layer to x. y: what the norm that follows makes of it.
    void finish(const Layer& layer, void* x, const void* attended, int64_t rows, void* y) {
        layer.o.multiply(attended, rows, space_.delta, step_.threads);
        norm(x, space_.delta, layer.mlp_norm, rows, space_.y);
        layer.gate_up.multiply(space_.y, rows, space_.gate_up, step_.threads);
        const RamifyGate gate = {space_.gate_up, space_.gated, stack_.inner, 2 * stack_.inner};
        ramify::gate_rows(fused_, stack_.dtype, gate, rows, step_.threads);
        layer.down.multiply(space_.gated, rows, space_.delta, step_.threads);
        norm(x, space_.delta, layer.next_norm, rows, y);
    }

    void norm(void* x, const void* delta, const void* weight, int64_t rows, void* out) {
        const RamifyNorm call = {x, delta, weight, out, stack_.hidden, stack_.hidden, stack_.hidden, stack_.eps};
        ramify::norm_rows(fused_, stack_.dtype, call, rows, step_.threads);
    }

    void gather(const void* from, const int64_t* rows, int64_t count, int64_t width, void* to) {
        const int64_t bytes = width * size_;
        for (int64_t i = 0; i < count; i++) {
            std::memcpy(static_cast<char*>(to) + i * bytes, static_cast<const char*>(from) + rows[i] * bytes, bytes);
        }
    }

    const Stack& stack_;
    const Step& step_;
    const RamifyFused& fused_;
    const int64_t size_;  // of an element
    const Space space_;
};

}  // namespace

void Product::multiply(const void* x, int64_t rows, void* out, int threads) const {
    if (dense) {
        ramify_linear::Dense call = bf16;
        call.x = static_cast<const uint16_t*>(x), call.x_stride = call.columns, call.rows = rows;
        call.out = static_cast<uint16_t*>(out), call.threads = threads;
        return ramify_linear::multiply(call);
    }
    ramify_linear::QuantizedProduct call = integers;
    call.x = x, call.x_stride = call.weight.columns, call.rows = rows;
    call.out = out, call.threads = threads;
    ramify_linear::multiply(call);
}

int run(const Stack& stack, const Step& step) { return Run(stack, step).all_layers(); }

}  // namespace ramify_layers
