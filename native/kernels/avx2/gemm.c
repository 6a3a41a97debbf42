#if defined(__x86_64__)
#include "kernels.h"

void ek_kernels_avx2(ek_kernels *k)
{
    (void)k;
}
#else
typedef int ek_no_avx2; /* a translation unit must not be empty */
#endif
