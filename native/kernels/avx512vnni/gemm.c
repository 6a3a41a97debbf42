#if defined(__x86_64__)
#include "kernels.h"

void ek_kernels_avx512vnni(ek_kernels *k)
{
    (void)k;
}
#else
typedef int ek_no_avx512vnni; /* a translation unit must not be empty */
#endif
