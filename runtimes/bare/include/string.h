/* The part of <string.h> that the runtime uses: a freestanding compiler brings none (memory.c). */
#ifndef EK_STRING_H
#define EK_STRING_H
#include <stddef.h>
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);
/* -ffreestanding forgets what memcpy means: without this every load of an unaligned word is a call */
#define memcpy(to, from, n) __builtin_memcpy(to, from, n)
#define memset(to, value, n) __builtin_memset(to, value, n)
#endif
