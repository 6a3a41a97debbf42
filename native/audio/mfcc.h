/* MFCC of 16-bit audio in integers: the bits of edgekit/mfcc.py on every machine, without libm or an FPU.
 *
 * The tables of a configuration come from Python: Mfcc(rate_hz=8000).header("front", scale, zero) is a C header that defines
 * `front`, FRONT_FRAME, FRONT_HOP and FRONT_WORK.  One frame:
 *
 *   static int32_t work[FRONT_WORK];
 *   ek_mfcc_frame(&front, samples, work, input + i * front.coefficients);     samples: FRONT_FRAME of them */
#ifndef EK_MFCC_H
#define EK_MFCC_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct ek_mfcc {
    uint16_t frame;          /* samples, at most 1 << log2_fft */
    uint16_t log2_fft;       /* at most 10 */
    uint16_t mels, coefficients;
    int32_t multiplier, zero; /* int8 output: (coefficient * multiplier + 2^15 >> 16) + zero; coefficients have 8 fractional bits */
    const int16_t *window;   /* (frame) Q15 */
    const int16_t *twiddle;  /* (fft / 2, 2) cos and -sin, Q15 */
    const uint16_t *first, *count; /* (mels) bins of each triangle */
    const uint16_t *weight;  /* Q8, triangles one after the other */
    const int16_t *dct;      /* (coefficients, mels) Q14 */
} ek_mfcc;

/* `work`: 2 << log2_fft words, lost afterwards.  `out`: `coefficients` values. */
void ek_mfcc_frame(const ek_mfcc *m, const int16_t *samples, int32_t *work, int8_t *out);

#ifdef __cplusplus
}
#endif
#endif
