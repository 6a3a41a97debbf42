/* The runtime as a WebAssembly module: what edgekit.mjs calls.  One module instance holds one session.
 *
 * There is no heap: memory grows at its end and is never given back, so an instance lives as long as its session. */
#include "edgekit.h"

#define EXPORT(name) __attribute__((export_name(#name))) name
#define PAGE 65536u

extern uint8_t __heap_base;
static uintptr_t top;
static ek_session *session;
static ek_tensor tensor;

const char *EXPORT(ek_wasm_error)(ek_status e);
void *EXPORT(ek_wasm_alloc)(size_t bytes);
ek_status EXPORT(ek_wasm_open)(const void *package, size_t length);
const ek_tensor *EXPORT(ek_wasm_input)(unsigned entry, unsigned i);
const ek_tensor *EXPORT(ek_wasm_output)(unsigned entry, unsigned i);
ek_status EXPORT(ek_wasm_run)(unsigned entry);
ek_status EXPORT(ek_wasm_selftest)(void);

const char *ek_wasm_error(ek_status e) { return ek_strerror(e); }

/* aligned to 64; 0 where the host gives no more pages */
void *ek_wasm_alloc(size_t bytes)
{
    if (!top)
        top = ((uintptr_t)&__heap_base + 63) & ~(uintptr_t)63;
    uintptr_t at = top, there = __builtin_wasm_memory_size(0) * PAGE;
    if (bytes > (size_t)-1 - at - PAGE)
        return 0;
    top = (at + bytes + 63) & ~(uintptr_t)63;
    if (top > there && __builtin_wasm_memory_grow(0, (top - there + PAGE - 1) / PAGE) == (size_t)-1) {
        top = at;
        return 0;
    }
    return (void *)at;
}

ek_status ek_wasm_open(const void *package, size_t length)
{
    ek_config c = EK_CONFIG_INIT;
    ek_status e = ek_arena_size(package, length, 1, c.mem_len);
    if (e != EK_OK)
        return e;
    c.package = package;
    c.package_len = length;
    for (unsigned i = 0; i < EK_MEM_KINDS; i++)
        if (!(c.mem[i] = ek_wasm_alloc(c.mem_len[i])))
            return EK_STATUS(EK_ERR_MEMORY, EK_AT_MEMORY, i);
    return ek_open(&session, &c);
}

const ek_tensor *ek_wasm_input(unsigned entry, unsigned i)
{
    return ek_input(session, entry, i, &tensor) == EK_OK ? &tensor : 0;
}

const ek_tensor *ek_wasm_output(unsigned entry, unsigned i)
{
    return ek_output(session, entry, i, &tensor) == EK_OK ? &tensor : 0;
}

ek_status ek_wasm_run(unsigned entry) { return ek_run(session, entry); }
ek_status ek_wasm_selftest(void) { return ek_selftest(session); }
