/* Winograd F(4x4, 3x3) with the points 0, 3/4, -3/4, 3/2, -3/2 and infinity: a quarter of the error of 0, 1, -1, 2, -2.
 * One dimension of the transforms, for floats and vectors alike; twin of edgekit/ops/winograd.py, which makes the weights. */
#ifndef EK_WINOGRAD_POINTS_H
#define EK_WINOGRAD_POINTS_H
#define EK_WINO_P 0.75f
#define EK_WINO_Q 1.5f
#define EK_WINO_P2 (EK_WINO_P * EK_WINO_P)
#define EK_WINO_Q2 (EK_WINO_Q * EK_WINO_Q)

/* six inputs d -> t[at + i * step], i below 6 */
#define EK_WINO_IN(d, t, at, step)                                                                    \
    do {                                                                                              \
        t[at] = d[0] * (EK_WINO_P2 * EK_WINO_Q2) - d[2] * (EK_WINO_P2 + EK_WINO_Q2) + d[4];           \
        t[at + step] = (d[4] - d[2] * EK_WINO_Q2) + (d[3] - d[1] * EK_WINO_Q2) * EK_WINO_P;           \
        t[at + 2 * step] = (d[4] - d[2] * EK_WINO_Q2) - (d[3] - d[1] * EK_WINO_Q2) * EK_WINO_P;       \
        t[at + 3 * step] = (d[4] - d[2] * EK_WINO_P2) + (d[3] - d[1] * EK_WINO_P2) * EK_WINO_Q;       \
        t[at + 4 * step] = (d[4] - d[2] * EK_WINO_P2) - (d[3] - d[1] * EK_WINO_P2) * EK_WINO_Q;       \
        t[at + 5 * step] = d[1] * (EK_WINO_P2 * EK_WINO_Q2) - d[3] * (EK_WINO_P2 + EK_WINO_Q2) + d[5]; \
    } while (0)

/* six products d -> t[at + i * step], i below 4 */
#define EK_WINO_OUT(d, t, at, step)                                                                                     \
    do {                                                                                                                \
        t[at] = d[0] + (d[1] + d[2]) + (d[3] + d[4]);                                                                   \
        t[at + step] = (d[1] - d[2]) * EK_WINO_P + (d[3] - d[4]) * EK_WINO_Q;                                           \
        t[at + 2 * step] = (d[1] + d[2]) * EK_WINO_P2 + (d[3] + d[4]) * EK_WINO_Q2;                                     \
        t[at + 3 * step] = (d[1] - d[2]) * (EK_WINO_P2 * EK_WINO_P) + (d[3] - d[4]) * (EK_WINO_Q2 * EK_WINO_Q) + d[5]; \
    } while (0)
#endif
