#if defined(__aarch64__)
#include "kernels.h"

void ek_kernels_i8mm(ek_kernels *k)
{
    (void)k;
}
#else
typedef int ek_no_i8mm; /* a translation unit must not be empty */
#endif
