/* Uses more stack than there is: the fault handler must say so and end the program with 99. */
#include "port.h"

static int deeper(volatile int *n)
{
    volatile int pad[64];
    pad[0] = *n + 1;
    return pad[0] > 1000000 ? pad[0] : deeper(pad) + pad[0];
}

int main(void)
{
    volatile int start = 0;
    return deeper(&start) == 0;
}
