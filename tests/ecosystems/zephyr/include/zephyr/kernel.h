#include <stddef.h>
#include <stdint.h>
#define __aligned(n) __attribute__((aligned(n)))
#define ARG_UNUSED(x) (void)(x)
static inline void k_yield(void) {}
