/* Float functions of our own: no libm, the same on every target up to fused multiply-add.
 * Errors against double over the finite range: exp, tanh, sigmoid, erf below 4 ulp; log below 2 ulp of max(1, |y|). */
#ifndef EK_FMATH_H
#define EK_FMATH_H
#include <stdint.h>

float ek_exp_f32(float x);
float ek_log_f32(float x);
float ek_tanh_f32(float x);
float ek_sigmoid_f32(float x);
float ek_erf_f32(float x);
float ek_sin_f32(float x);
float ek_cos_f32(float x);
float ek_sqrt_f32(float x); /* correctly rounded */
float ek_floor_f32(float x);
float ek_round_f32(float x); /* half to even, any magnitude */
float ek_pow_f32(float x, float y);
/* (float)x: cores of 32 bits would call a helper of the compiler */
float ek_s64_f32(int64_t x);
/* what layer_norm in int8 multiplies n x - sum by (rms: x), from the sum and the squares of n integers; rms: *sum becomes 0 */
float ek_norm_s8_scale(uint32_t n, int rms, float eps, int64_t square, int32_t *sum);
float ek_unary_f32(float x, unsigned kind, float alpha, float beta);
float ek_binary_f32(float a, float b, unsigned kind);
#endif
