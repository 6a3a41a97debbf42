/* Winograd's transforms F(4x4, 3x3) of one vector of channels, as a template over its width: included by an ISA's winograd.c
 * for each width, after it has defined EK_VB (bytes), EK_V (see elementwise.h), the names EK_WINO(vec), a type of vector, and
 * EK_WINO(clamp), `(vec, float lo, float hi)`. */
#include "kernels.h"
#include "winograd_points.h"

EK_INLINE EK_V EK_WINO(vec) EK_WINO(load)(const float *p)
{
    EK_WINO(vec) v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

EK_INLINE EK_V void EK_WINO(store)(float *p, EK_WINO(vec) v) { __builtin_memcpy(p, &v, sizeof v); }

/* channels from c on */
EK_INLINE EK_V void EK_WINO(in)(const float *const px[36], float *v, size_t plane, uint32_t c)
{
    EK_WINO(vec) t[36];
    EK_UNROLL for (int j = 0; j < 6; j++) {
        EK_WINO(vec) d[6];
        EK_UNROLL for (int i = 0; i < 6; i++)
            d[i] = EK_WINO(load)(px[i * 6 + j] + c);
        EK_WINO_IN(d, t, j, 6);
    }
    EK_UNROLL for (int i = 0; i < 6; i++) {
        EK_WINO(vec) r[6];
        EK_WINO_IN((t + i * 6), r, 0, 1);
        EK_UNROLL for (int j = 0; j < 6; j++)
            EK_WINO(store)(v + (size_t)(i * 6 + j) * plane + c, r[j]);
    }
}

EK_INLINE EK_V void EK_WINO(out)(const float *m, size_t plane, const float *bias, const ek_wino_out *o, float *y, uint32_t c)
{
    EK_WINO(vec) t[24], b = EK_WINO(load)(bias + c);
    EK_UNROLL for (int j = 0; j < 6; j++) {
        EK_WINO(vec) d[6];
        EK_UNROLL for (int i = 0; i < 6; i++)
            d[i] = EK_WINO(load)(m + (size_t)(i * 6 + j) * plane + c);
        EK_WINO_OUT(d, t, j, 6);
    }
    EK_UNROLL for (unsigned i = 0; i < 4; i++) {
        EK_WINO(vec) r[4];
        EK_WINO_OUT((t + i * 6), r, 0, 1);
        if (i < o->rows)
            EK_UNROLL for (unsigned j = 0; j < 4; j++)
                if (j < o->cols)
                    EK_WINO(store)(y + (ptrdiff_t)i * o->row + (ptrdiff_t)j * o->col + c, EK_WINO(clamp)(r[j] + b, o->lo, o->hi));
    }
}
#undef EK_VB
#undef EK_WINO
