/* The integer requantization against the float one: argv[1] random values, and ties made on purpose. */
#include <stdio.h>
#include <stdlib.h>
#include "qmath.h"

static uint64_t state = 88172645463325252u;
static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static unsigned long wrong;
static void compare(int32_t acc, float scale, int32_t zero, float lo, float hi)
{
    int a = ek_requant_float(acc, scale, lo, hi, zero), b = ek_requant_integer(acc, scale, lo, hi, zero);
    if (a != b && wrong++ < 5)
        printf("acc %d scale %a zero %d lo %g hi %g: float %d integer %d\n", (int)acc, (double)scale, (int)zero, (double)lo, (double)hi, a, b);
}

static float make(uint32_t mantissa, int exponent) /* 1.mantissa * 2^exponent */
{
    uint32_t bits = (uint32_t)(exponent + 127) << 23 | (mantissa & 0x7fffffu);
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 1000000;
    for (long i = 0; i < count; i++) {
        uint64_t r = next();
        int exponent = (int)(r >> 32 & 0xff) % 49 - 40; /* 2^-40 .. 2^8 */
        uint32_t mantissa = (uint32_t)(r >> 40);
        if ((r & 7) == 0)
            mantissa &= 0x7fffffu << (r >> 3 & 31) % 24; /* few bits: products that tie */
        float scale = make(mantissa, exponent);
        int32_t zero = (int32_t)(r >> 8 & 0xff) - 128, acc = (int32_t)next() >> (next() & 31);
        if (r & 16) { /* near (n + 1/2) / scale */
            double want = ((double)((int32_t)(next() & 511) - 256) + 0.5) / (double)scale + (double)((int)(next() & 3) - 1);
            acc = want > 2147483647.0 || want < -2147483648.0 ? INT32_MIN : (int32_t)want;
        }
        float lo = (float)(-128 - zero), hi = (float)(127 - zero);
        if (r & 32)
            lo = lo < 0 ? 0 : lo;
        compare(acc, scale, zero, lo, hi);
    }
    /* every tie: (2 n + 1) * 2^j * 2^-(j + 1), also where |acc| has more than 24 bits */
    for (int j = 0; j < 31; j++)
        for (int32_t n = -300; n <= 300; n++)
            for (int64_t d = -1; d <= 1; d++) {
                int64_t acc = (int64_t)(2 * n + 1) * ((int64_t)1 << j) + d;
                if (acc <= INT32_MAX && acc >= INT32_MIN)
                    for (uint32_t m = 0; m < 4; m++)
                        compare((int32_t)acc, make(m, -(j + 1)), 3, -131, 124);
            }
    const int32_t ends[] = { INT32_MIN, INT32_MIN + 1, INT32_MAX, 0, 1, -1, 0xffffff, 0x1000000, 0x1000001, 0x1000003, 0x7fffff80, 0x7fffffbf, 0x7fffffc0, 0x7fffffc1 };
    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++)
        for (int e = -40; e <= 8; e++)
            for (uint32_t m = 0x7ffff0; m <= 0x800010; m++)
                compare(ends[i], make(m & 0x7fffff, e), -5, -123, 132);
    printf("%lu differ\n", wrong);
    return wrong != 0;
}
