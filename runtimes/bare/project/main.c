/* One inference of @name@ and its self-test, from the package in flash.  Replace what you do not need. */
#include "@name@.h"
#if defined(EK_PORT)
#include "port.h"
#define say ek_port_print
#elif __STDC_HOSTED__
#include <stdio.h>
#define say(text) fputs(text, stdout)
#else
#define say(text) (void)(text) /* your console */
#endif

EK_ALIGNED(16) static uint8_t memory[@NAME@_MEMORY_BYTES];

static int fail(const char *what, ek_status s)
{
    say(what);
    say(": ");
    say(ek_strerror(s));
    say("\n");
    return (int)EK_CODE(s);
}

int main(void)
{
    ek_session *s;
    ek_config c;
    ek_tensor in, out;
    ek_status e = ek_verify(@name@_package, @NAME@_PACKAGE_BYTES, 0); /* every checksum; a key also checks a signature */
    if (e != EK_OK) return fail("verify", e);
    @name@_config(&c, memory);
    if ((e = ek_open(&s, &c)) != EK_OK) return fail("open", e);
    if ((e = ek_selftest(s)) != EK_OK) return fail("selftest", e);
    say("@name@: self-test passed\n");
    ek_input(s, 0, 0, &in); /* write in.bytes bytes at in.data */
    for (size_t i = 0; i < in.bytes; i++) ((uint8_t *)in.data)[i] = 0;
    if ((e = ek_run(s, 0)) != EK_OK) return fail("run", e);
    ek_output(s, 0, 0, &out); /* read out.bytes bytes at out.data */
    char text[] = "@name@: first output byte 000\n";
    for (unsigned v = *(const uint8_t *)out.data, i = sizeof text - 3; v; v /= 10) text[i--] = (char)('0' + v % 10);
    say(text);
#ifdef EK_PORT
    say("stack ");
    ek_port_print_u32((uint32_t)ek_port_stack_used());
    say("\n");
#endif
    return 0;
}
