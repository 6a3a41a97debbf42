/* printk of %u, on the console of the start-up */
#include <stdarg.h>
#include <stdint.h>
void ek_port_print(const char *text);
void ek_port_print_u32(uint32_t value);
__attribute__((format(printf, 1, 2))) static inline void printk(const char *text, ...)
{
    va_list values;
    va_start(values, text);
    for (char one[2] = { 0 }; *text; text++) {
        one[0] = *text;
        if (*text == '%')
            text++, ek_port_print_u32(va_arg(values, unsigned));
        else
            ek_port_print(one);
    }
    va_end(values);
}
