/* Window, FFT, mel bands, log2, DCT: every step rounds as its twin in edgekit/mfcc.py does. */
#include "mfcc.h"

static int32_t rounded(int64_t v, unsigned shift) { return (int32_t)((v + ((int64_t)1 << (shift - 1))) >> shift); }

/* In place, decimation in time; z is (n, 2).  |values| stay below 2^31 since the input's are below 2^(30 - log2 n). */
static void fft(int32_t *z, unsigned log2_n, const int16_t *twiddle)
{
    const unsigned n = 1u << log2_n;
    for (unsigned i = 0, j = 0; i < n; i++) { /* j: i with its bits reversed */
        if (i < j)
            for (unsigned k = 0; k < 2; k++) {
                int32_t t = z[2 * i + k];
                z[2 * i + k] = z[2 * j + k];
                z[2 * j + k] = t;
            }
        unsigned bit = n >> 1;
        while (bit && (j & bit))
            j ^= bit, bit >>= 1;
        j |= bit;
    }
    for (unsigned half = 1; half < n; half *= 2)
        for (unsigned i = 0; i < n; i += 2 * half)
            for (unsigned k = 0; k < half; k++) {
                int32_t *a = z + 2 * (i + k), *b = a + 2 * half;
                const int16_t *w = twiddle + 2 * k * (n / 2 / half);
                int32_t re = rounded((int64_t)b[0] * w[0] - (int64_t)b[1] * w[1], 15);
                int32_t im = rounded((int64_t)b[0] * w[1] + (int64_t)b[1] * w[0], 15);
                b[0] = a[0] - re;
                b[1] = a[1] - im;
                a[0] += re;
                a[1] += im;
            }
}

/* log2 with 8 fractional bits, rounded down; 0 for 0 */
static int32_t log2_q8(uint64_t v)
{
    if (!v)
        return 0;
    unsigned n = 0;
    while (v >> n > 1)
        n++;
    uint32_t m = (uint32_t)(n > 15 ? v >> (n - 15) : v << (15 - n)); /* Q15 in [1, 2) */
    int32_t out = (int32_t)n;
    for (unsigned i = 0; i < 8; i++) {
        m = m * m >> 15;
        out = out << 1 | (int32_t)(m >> 16);
        m >>= m >> 16;
    }
    return out;
}

void ek_mfcc_frame(const ek_mfcc *m, const int16_t *samples, int32_t *work, int8_t *out)
{
    const unsigned n = 1u << m->log2_fft, fraction = 15u - m->log2_fft;
    for (unsigned i = 0; i < n; i++) {
        work[2 * i] = i < m->frame ? rounded((int64_t)samples[i] * m->window[i], 15) * (1 << fraction) : 0;
        work[2 * i + 1] = 0;
    }
    fft(work, m->log2_fft, m->twiddle);
    const uint16_t *weight = m->weight;
    int32_t *logs = work; /* in place: bins of later bands lie behind, i <= 2 first[i] */
    for (unsigned i = 0; i < m->mels; i++) {
        uint64_t energy = 0;
        for (unsigned b = m->first[i]; b < (unsigned)m->first[i] + m->count[i]; b++) {
            int64_t re = work[2 * b], im = work[2 * b + 1];
            energy += ((uint64_t)(re * re + im * im) >> (2 * fraction - 4)) * *weight++;
        }
        logs[i] = log2_q8(energy);
    }
    for (unsigned k = 0; k < m->coefficients; k++) {
        int64_t sum = 0;
        for (unsigned i = 0; i < m->mels; i++)
            sum += (int64_t)logs[i] * m->dct[k * m->mels + i];
        int32_t q = rounded((int64_t)rounded(sum, 14) * m->multiplier, 16) + m->zero;
        out[k] = (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
    }
}
