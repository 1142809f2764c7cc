/* Fused passes of the encoder for a CPU, in bfloat16 with float32 arithmetic: each reads its input once and writes its output once.
 *
 * Built and called by native.py, which says when. Plain C and OpenMP; the compiler vectorises the inner loops.
 * Letters: T tokens of all rows · R rows · N heads · L padded length · H head width · F feed-forward width · M targets · V vocabulary
 */
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef int64_t i64;

static inline float wide(bf16 x) {
    union { uint32_t bits; float value; } u = {(uint32_t)x << 16};
    return u.value;
}

/* To nearest, ties to even. A NaN stays one as long as its mantissa is not all ones, which arithmetic does not make. */
static inline bf16 narrow(float x) {
    union { float value; uint32_t bits; } u = {x};
    return (bf16)((u.bits + 0x7fffu + ((u.bits >> 16) & 1u)) >> 16);
}

/* e^x for x <= 0, relative error below 4e-6, far below bfloat16's: 2^n times a polynomial on [-ln2/2, ln2/2], where the compiler
 * may join the two parts of ln 2 (-fassociative-math). A NaN passes through. */
static inline float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = __builtin_floorf(x * 1.44269504f + 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    union { uint32_t bits; float value; } scale = {(uint32_t)((int32_t)n + 127) << 23};
    return (p * r * r + r + 1.0f) * scale.value;
}

/* Normal distribution function and density. erf by Abramowitz & Stegun 7.1.26, absolute error below 1.5e-7. */
static inline void normal(float x, float *cdf, float *density) {
    float bell = exp_negative(-0.5f * x * x);
    float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * __builtin_fabsf(x));
    float tail = 0.5f * t * bell *
        (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    *cdf = x < 0.0f ? tail : 1.0f - tail;
    *density = 0.39894228f * bell;
}

/* Elements between two requests to memory. */
#define BLOCK 128

/* Ask for what the next row of a loop reads. The processor's own look-ahead stops at every page, and rows are short: measured
 * on one core, GeGLU of 8,192 rows of 1,408 takes 3.3 ms so, and 8.0 without; its way back 4.0 and 8.9. */
static inline void ask_for(const bf16 *from, i64 count) {
    for (i64 i = 0; i < count; i += 32) __builtin_prefetch(from + i, 0, 2);
}

/* inner (T, 2F) holds signal and gate; out (T, F) = gelu(signal) * gate. */
void geglu_forward(const bf16 *inner, bf16 *out, i64 tokens, i64 width, i64 threads) {
#pragma omp parallel for num_threads((int)threads)
    for (i64 t = 0; t < tokens; t++)
        for (i64 first = 0; first < width; first += BLOCK) {
            i64 count = width - first < BLOCK ? width - first : BLOCK;
            const bf16 *signal = inner + 2 * width * t + first, *gate = signal + width;
            bf16 *row = out + width * t + first;
            ask_for(signal + 2 * width, count);
            ask_for(gate + 2 * width, count);
#pragma omp simd
            for (i64 f = 0; f < count; f++) {
                float s = wide(signal[f]), cdf, density;
                normal(s, &cdf, &density);
                row[f] = narrow(s * cdf * wide(gate[f]));
            }
        }
}

void geglu_backward(const bf16 *inner, const bf16 *grad_out, bf16 *grad_inner, i64 tokens, i64 width, i64 threads) {
#pragma omp parallel for num_threads((int)threads)
    for (i64 t = 0; t < tokens; t++)
        for (i64 first = 0; first < width; first += BLOCK) {
            i64 count = width - first < BLOCK ? width - first : BLOCK;
            const bf16 *signal = inner + 2 * width * t + first, *gate = signal + width, *grad = grad_out + width * t + first;
            bf16 *grad_signal = grad_inner + 2 * width * t + first, *grad_gate = grad_signal + width;
            ask_for(signal + 2 * width, count);
            ask_for(gate + 2 * width, count);
            ask_for(grad + width, count);
#pragma omp simd
            for (i64 f = 0; f < count; f++) {
                float s = wide(signal[f]), g = wide(grad[f]), cdf, density;
                normal(s, &cdf, &density);
                grad_gate[f] = narrow(g * s * cdf);
                grad_signal[f] = narrow(g * wide(gate[f]) * (cdf + s * density));
            }
        }
}

/* out = gelu(inner), both of so many elements. */
void gelu_forward(const bf16 *inner, bf16 *out, i64 elements, i64 threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (i64 first = 0; first < elements; first += BLOCK) {
        i64 end = first + BLOCK < elements ? first + BLOCK : elements;
        ask_for(inner + first + 8 * BLOCK, BLOCK);
#pragma omp simd
        for (i64 i = first; i < end; i++) {
            float x = wide(inner[i]), cdf, density;
            normal(x, &cdf, &density);
            out[i] = narrow(x * cdf);
        }
    }
}

void gelu_backward(const bf16 *inner, const bf16 *grad_out, bf16 *grad_inner, i64 elements, i64 threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (i64 first = 0; first < elements; first += BLOCK) {
        i64 end = first + BLOCK < elements ? first + BLOCK : elements;
        ask_for(inner + first + 8 * BLOCK, BLOCK);
        ask_for(grad_out + first + 8 * BLOCK, BLOCK);
#pragma omp simd
        for (i64 i = first; i < end; i++) {
            float x = wide(inner[i]), cdf, density;
            normal(x, &cdf, &density);
            grad_inner[i] = narrow(wide(grad_out[i]) * (cdf + x * density));
        }
    }
}

/* Turn pairs (h, h + H/2) of one head by the token's angles, times scale; direction 1 or -1. */
static inline void turn(const bf16 *x, bf16 *out, const float *cos, const float *sin, i64 half, float direction, float scale) {
#pragma omp simd
    for (i64 h = 0; h < half; h++) {
        float a = wide(x[h]), b = wide(x[h + half]), s = direction * sin[h];
        out[h] = narrow(scale * (a * cos[h] - b * s));
        out[h + half] = narrow(scale * (b * cos[h] + a * s));
    }
}

/* qkv (T, 3, N, H) -> q, k, v (R, N, L, H), q and k turned, q times scale, zeros after a row's end.
 * starts, lengths (R,): where each row's tokens are. cos, sin (T, H/2), or null for no rotation. */
void pack(const bf16 *qkv, const float *cos, const float *sin, const i64 *starts, const i64 *lengths, bf16 *packed,
          i64 rows, i64 heads, i64 length, i64 width, float scale, i64 threads) {
    i64 part = rows * heads * length * width, half = width / 2, token = 3 * heads * width;
#pragma omp parallel for num_threads((int)threads) schedule(dynamic, 64)
    for (i64 cell = 0; cell < rows * length; cell++) {
        i64 r = cell / length, l = cell % length, t = starts[r] + l;
        if (l < lengths[r]) ask_for(qkv + (t + 2) * token, token);
        for (i64 p = 0; p < 3; p++)
            for (i64 n = 0; n < heads; n++) {
                const bf16 *x = qkv + t * token + (p * heads + n) * width;
                bf16 *out = packed + p * part + ((r * heads + n) * length + l) * width;
                float factor = p == 0 ? scale : 1.0f;
                if (l >= lengths[r])
                    memset(out, 0, width * sizeof(bf16));
                else if (p < 2 && cos)
                    turn(x, out, cos + t * half, sin + t * half, half, 1.0f, factor);
                else
                    for (i64 h = 0; h < width; h++) out[h] = p == 0 ? narrow(factor * wide(x[h])) : x[h];
            }
    }
}

/* The gradient's way back: (R, N, L, H) of q, k and v -> (T, 3, N, H). */
void unpack(const bf16 *grad_q, const bf16 *grad_k, const bf16 *grad_v, const float *cos, const float *sin, const i64 *starts,
            const i64 *lengths, bf16 *grad_qkv, i64 rows, i64 heads, i64 length, i64 width, float scale, i64 threads) {
    i64 half = width / 2;
    const bf16 *parts[3] = {grad_q, grad_k, grad_v};
#pragma omp parallel for collapse(2) num_threads((int)threads) schedule(dynamic, 64)
    for (i64 r = 0; r < rows; r++)
        for (i64 l = 0; l < length; l++)
            for (i64 p = 0; p < 3 && l < lengths[r]; p++)
                for (i64 n = 0; n < heads; n++) {
                    i64 t = starts[r] + l;
                    const bf16 *x = parts[p] + ((r * heads + n) * length + l) * width;
                    bf16 *out = grad_qkv + ((t * 3 + p) * heads + n) * width;
                    float factor = p == 0 ? scale : 1.0f;
                    if (p < 2 && cos)
                        turn(x, out, cos + t * half, sin + t * half, half, -1.0f, factor);
                    else
                        for (i64 h = 0; h < width; h++) out[h] = p == 0 ? narrow(factor * wide(x[h])) : x[h];
                }
}

/* (R, N, L, H) -> (T, N, H), tokens only. */
void merge(const bf16 *packed, const i64 *starts, const i64 *lengths, bf16 *out, i64 rows, i64 heads, i64 length, i64 width,
           i64 threads) {
#pragma omp parallel for collapse(2) num_threads((int)threads) schedule(dynamic, 64)
    for (i64 r = 0; r < rows; r++)
        for (i64 l = 0; l < length; l++)
            for (i64 n = 0; n < heads && l < lengths[r]; n++)
                memcpy(out + ((starts[r] + l) * heads + n) * width, packed + ((r * heads + n) * length + l) * width,
                       width * sizeof(bf16));
}

/* (T, N, H) -> (R, N, L, H), zeros after a row's end. */
void spread(const bf16 *flat, const i64 *starts, const i64 *lengths, bf16 *packed, i64 rows, i64 heads, i64 length, i64 width,
            i64 threads) {
#pragma omp parallel for collapse(2) num_threads((int)threads) schedule(dynamic, 2)
    for (i64 r = 0; r < rows; r++)
        for (i64 n = 0; n < heads; n++) {
            bf16 *head = packed + (r * heads + n) * length * width;
            for (i64 l = 0; l < lengths[r]; l++)
                memcpy(head + l * width, flat + ((starts[r] + l) * heads + n) * width, width * sizeof(bf16));
            memset(head + lengths[r] * width, 0, (length - lengths[r]) * width * sizeof(bf16));
        }
}

/* One decision of dropout: a hash of seed and index (the finalizer of MurmurHash3), so that nothing need be kept. */
static inline uint32_t decide(uint32_t seed, uint32_t index) {
    uint32_t x = index * 0x9e3779b1u ^ seed;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

/* x after dropout: kept where the hash is at least drop_below, times keep_scale. */
static inline float dropped(float x, i64 seed, i64 index, i64 drop_below, float keep_scale) {
    return decide((uint32_t)seed, (uint32_t)index) < (uint32_t)drop_below ? 0.0f : keep_scale * x;
}

/* scores (R, N, L, L) -> shares, in place; a token sees its row, within half_window tokens on either side.
 * after: the shares after dropout; null for none. */
void softmax_forward(bf16 *scores, bf16 *after, const i64 *lengths, i64 rows, i64 heads, i64 length, i64 half_window,
                     i64 seed, i64 drop_below, float keep_scale, i64 threads) {
#pragma omp parallel for num_threads((int)threads) schedule(guided)
    for (i64 rn = 0; rn < rows * heads; rn++) {
        i64 n_keys = lengths[rn / heads];
        float powers[length];
        for (i64 i = 0; i < length; i++) {
            i64 at = (rn * length + i) * length;
            bf16 *row = scores + at;
            i64 first = i > half_window ? i - half_window : 0, last = i + half_window + 1 < n_keys ? i + half_window + 1 : n_keys;
            if (i >= n_keys) {
                memset(row, 0, length * sizeof(bf16));
                if (after) memset(after + at, 0, length * sizeof(bf16));
                continue;
            }
            float highest = wide(row[first]), sum = 0.0f;
#pragma omp simd reduction(max : highest)
            for (i64 j = first; j < last; j++) highest = wide(row[j]) > highest ? wide(row[j]) : highest;
#pragma omp simd reduction(+ : sum)
            for (i64 j = first; j < last; j++) {
                powers[j] = exp_negative(wide(row[j]) - highest);
                sum += powers[j];
            }
            float inverse = 1.0f / sum;
            memset(row, 0, first * sizeof(bf16));
            memset(row + last, 0, (length - last) * sizeof(bf16));
#pragma omp simd
            for (i64 j = first; j < last; j++) row[j] = narrow(powers[j] * inverse);
            if (after)
#pragma omp simd
                for (i64 j = 0; j < length; j++)
                    after[at + j] = narrow(dropped(wide(row[j]), seed, at + j, drop_below, keep_scale));
        }
    }
}

/* grads of the (dropped) shares -> grads of the scores, in place. Zeros of the shares make zeros, so padding needs no care. */
void softmax_backward(const bf16 *shares, bf16 *grads, i64 rows, i64 heads, i64 length, i64 seed, i64 drop_below,
                      float keep_scale, i64 threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (i64 i = 0; i < rows * heads * length; i++) {
        const bf16 *p = shares + i * length;
        bf16 *g = grads + i * length;
        float undropped[length], dot = 0.0f;
        if (drop_below)
#pragma omp simd
            for (i64 j = 0; j < length; j++)
                undropped[j] = dropped(wide(g[j]), seed, i * length + j, drop_below, keep_scale);
        else
#pragma omp simd
            for (i64 j = 0; j < length; j++) undropped[j] = wide(g[j]);
#pragma omp simd reduction(+ : dot)
        for (i64 j = 0; j < length; j++) dot += undropped[j] * wide(p[j]);
#pragma omp simd
        for (i64 j = 0; j < length; j++) g[j] = narrow(wide(p[j]) * (undropped[j] - dot));
    }
}

/* sum (T, D) = stream + branch, the branch after dropout (see decide) where drop_below is above 0; normed (T, D) = (sum - mean) /
 * deviation * weight + bias; branch and bias may be null, and sum is written only with a branch. means, inverses (T,): of the rows,
 * for the way back. */
void norm_forward(const bf16 *stream, const bf16 *branch, const float *weight, const float *bias, bf16 *sum, bf16 *normed,
                  float *means, float *inverses, i64 tokens, i64 width, float eps, i64 seed, i64 drop_below, float keep_scale,
                  i64 threads) {
#pragma omp parallel for num_threads((int)threads)
    for (i64 t = 0; t < tokens; t++) {
        const bf16 *x = stream + t * width;
        float row[width], mean = 0.0f, variance = 0.0f;
        ask_for(x + 4 * width, width);
        if (branch) {
            const bf16 *y = branch + t * width;
            ask_for(y + 4 * width, width);
#pragma omp simd
            for (i64 d = 0; d < width; d++) {
                float kept = drop_below ? dropped(wide(y[d]), seed, t * width + d, drop_below, keep_scale) : wide(y[d]);
                bf16 rounded = narrow(wide(x[d]) + kept);
                sum[t * width + d] = rounded;
                row[d] = wide(rounded);
            }
        } else
#pragma omp simd
            for (i64 d = 0; d < width; d++) row[d] = wide(x[d]);
#pragma omp simd reduction(+ : mean)
        for (i64 d = 0; d < width; d++) mean += row[d];
        mean /= (float)width;
#pragma omp simd reduction(+ : variance)
        for (i64 d = 0; d < width; d++) variance += (row[d] - mean) * (row[d] - mean);
        float inverse = 1.0f / __builtin_sqrtf(variance / (float)width + eps);
        means[t] = mean;
        inverses[t] = inverse;
#pragma omp simd
        for (i64 d = 0; d < width; d++)
            normed[t * width + d] = narrow((row[d] - mean) * inverse * weight[d] + (bias ? bias[d] : 0.0f));
    }
}

/* grad (T, D) of the sum: through the norm, plus grad_sum where it is not null; grad_branch (T, D), where it is not null: the same
 * behind dropout. grad_weight, grad_bias (threads, D): each thread's share, zeros before; grad_bias may be null. */
void norm_backward(const bf16 *sum, const float *weight, const float *means, const float *inverses, const bf16 *grad_normed,
                   const bf16 *grad_sum, bf16 *grad, bf16 *grad_branch, float *grad_weight, float *grad_bias, i64 tokens, i64 width,
                   i64 seed, i64 drop_below, float keep_scale, i64 threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (i64 part = 0; part < threads; part++)
        for (i64 t = tokens * part / threads; t < tokens * (part + 1) / threads; t++) {
            const bf16 *x = sum + t * width, *g = grad_normed + t * width;
            float *own = grad_weight + part * width, scaled[width], hats[width], total = 0.0f, along = 0.0f;
            ask_for(x + 4 * width, width);
            ask_for(g + 4 * width, width);
#pragma omp simd reduction(+ : total, along)
            for (i64 d = 0; d < width; d++) {
                float hat = (wide(x[d]) - means[t]) * inverses[t], into = wide(g[d]);
                own[d] += into * hat;
                hats[d] = hat;
                scaled[d] = into * weight[d];
                total += scaled[d];
                along += scaled[d] * hat;
            }
            total /= (float)width;
            along /= (float)width;
            if (grad_bias)
#pragma omp simd
                for (i64 d = 0; d < width; d++) grad_bias[part * width + d] += wide(g[d]);
            const bf16 *passed = grad_sum + t * width;
            if (grad_sum) ask_for(passed + 4 * width, width);
#pragma omp simd
            for (i64 d = 0; d < width; d++) {
                float into = (scaled[d] - total - hats[d] * along) * inverses[t];
                if (grad_sum) into += wide(passed[d]);
                grad[t * width + d] = narrow(into);
                if (grad_branch) grad_branch[t * width + d] = narrow(dropped(into, seed, t * width + d, drop_below, keep_scale));
            }
        }
}

/* losses (M,) = -ln softmax(logits + bias)[target], 0 where the target is negative; log_sums (M,) for the way back. */
void cross_entropy_forward(const bf16 *logits, const float *bias, const i64 *targets, float *losses, float *log_sums, i64 n_targets,
                           i64 vocab, i64 threads) {
#pragma omp parallel for num_threads((int)threads)
    for (i64 m = 0; m < n_targets; m++) {
        const bf16 *row = logits + m * vocab;
        float highest = wide(row[0]) + bias[0], sum = 0.0f;
#pragma omp simd reduction(max : highest)
        for (i64 v = 0; v < vocab; v++) {
            float x = wide(row[v]) + bias[v];
            highest = x > highest ? x : highest;
        }
#pragma omp simd reduction(+ : sum)
        for (i64 v = 0; v < vocab; v++) sum += exp_negative(wide(row[v]) + bias[v] - highest);
        log_sums[m] = highest + __builtin_logf(sum);
        losses[m] = targets[m] < 0 ? 0.0f : log_sums[m] - wide(row[targets[m]]) - bias[targets[m]];
    }
}

/* logits become their own gradients; grad_bias (threads, V) holds each thread's share of the bias's, zeros before. by_log_sum (M),
 * or nothing: the gradient of each row's log sum from elsewhere, which goes to the logits by their shares of the sum. */
void cross_entropy_backward(bf16 *logits, const float *bias, const i64 *targets, const float *log_sums, const float *by_log_sum,
                            float scale, float *grad_bias, i64 n_targets, i64 vocab, i64 threads) {
#pragma omp parallel for num_threads((int)threads) schedule(static)
    for (i64 part = 0; part < threads; part++) {
        float *own = grad_bias + part * vocab;
        for (i64 m = n_targets * part / threads; m < n_targets * (part + 1) / threads; m++) {
            bf16 *row = logits + m * vocab;
            if (targets[m] < 0) {
                memset(row, 0, vocab * sizeof(bf16));
                continue;
            }
            float truth = wide(row[targets[m]]) + bias[targets[m]], more = by_log_sum ? by_log_sum[m] : 0.0f;
#pragma omp simd
            for (i64 v = 0; v < vocab; v++) {
                float grad = (scale + more) * exp_negative(wide(row[v]) + bias[v] - log_sums[m]);
                own[v] += grad;
                row[v] = narrow(grad);
            }
            own[targets[m]] -= scale;
            float share = exp_negative(truth - log_sums[m]);
            row[targets[m]] = narrow(scale * (share - 1.0f) + more * share);
        }
    }
}
