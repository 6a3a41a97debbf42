/* Steps shared by the Helium kernels: clamp and requantize four at a time. */
#ifndef EK_MVE_H
#define EK_MVE_H
#include <arm_mve.h>
#include "kernels.h"
#include "qmath.h"
#include "simd.h"

void ek_dw_mve(ek_kernels *k);
void ek_elementwise_mve(ek_kernels *k);

/* VMAXNM and VMINNM send NaN to the other operand, as ek_clamp_f32 does to lo */
EK_INLINE float32x4_t ek_clamp_mve(float32x4_t v, float lo, float hi)
{
    return vminnmq_f32(vmaxnmq_f32(v, vdupq_n_f32(lo)), vdupq_n_f32(hi));
}

/* accumulators -> int8 values in int32 */
EK_INLINE int32x4_t ek_requant_mve(int32x4_t acc, float32x4_t scale, float lo, float hi, int32_t zero)
{
    float32x4_t v = vmulq_f32(vcvtq_f32_s32(acc), scale);
    return vaddq_n_s32(vcvtnq_s32_f32(ek_clamp_mve(v, lo, hi)), zero);
}
#endif
