/* Winograd's transforms F(4x4, 3x3) as a template over the vector width: included once by an ISA's winograd.c after it has
 * defined EK_VB, EK_V (see elementwise.h) and `ek_vclamp(vf, float lo, float hi)`, with the type vf.  Channels are walked a
 * vector at a time; the last vector reaches back over channels that are done already. */
#ifndef EK_WINOGRAD_TEMPLATE_H
#define EK_WINOGRAD_TEMPLATE_H
#include "kernels.h"
#include "winograd_points.h"

enum { LANES = EK_VB / 4 };

EK_INLINE EK_V vf load(const float *p)
{
    vf v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

EK_INLINE EK_V void store(float *p, vf v) { __builtin_memcpy(p, &v, sizeof v); }

static EK_V void wino_in(const float *const px[36], float *v, size_t plane, uint32_t channels)
{
    for (uint32_t c = 0; c < channels; c += LANES) {
        if (channels - c < LANES)
            c = channels - LANES;
        vf t[36];
        EK_UNROLL for (int j = 0; j < 6; j++) {
            vf d[6];
            EK_UNROLL for (int i = 0; i < 6; i++)
                d[i] = load(px[i * 6 + j] + c);
            EK_WINO_IN(d, t, j, 6);
        }
        EK_UNROLL for (int i = 0; i < 6; i++) {
            vf r[6];
            EK_WINO_IN((t + i * 6), r, 0, 1);
            EK_UNROLL for (int j = 0; j < 6; j++)
                store(v + (size_t)(i * 6 + j) * plane + c, r[j]);
        }
    }
}

static EK_V void wino_out(const float *m, size_t plane, const float *bias, const ek_wino_out *o, float *y, uint32_t channels)
{
    for (uint32_t c = 0; c < channels; c += LANES) {
        if (channels - c < LANES)
            c = channels - LANES;
        vf t[24], b = load(bias + c);
        EK_UNROLL for (int j = 0; j < 6; j++) {
            vf d[6];
            EK_UNROLL for (int i = 0; i < 6; i++)
                d[i] = load(m + (size_t)(i * 6 + j) * plane + c);
            EK_WINO_OUT(d, t, j, 6);
        }
        EK_UNROLL for (unsigned i = 0; i < 4; i++) {
            vf r[4];
            EK_WINO_OUT((t + i * 6), r, 0, 1);
            if (i < o->rows)
                EK_UNROLL for (unsigned j = 0; j < 4; j++)
                    if (j < o->cols)
                        store(y + (ptrdiff_t)i * o->row + (ptrdiff_t)j * o->col + c, ek_vclamp(r[j] + b, o->lo, o->hi));
        }
    }
}
#endif
