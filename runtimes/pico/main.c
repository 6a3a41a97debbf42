/* Self-test of the model, then one inference and its time, every second. */
#include <stdio.h>
#include <string.h>
#include "pico/stdlib.h"
#include "kws.h"

EK_ALIGNED(16) static uint8_t memory[KWS_MEMORY_BYTES];

int main(void)
{
    ek_session *session;
    ek_config config;
    ek_tensor input, output;
    stdio_init_all();
    kws_config(&config, memory);
    ek_status e = ek_open(&session, &config);
    if (e == EK_OK)
        e = ek_selftest(session);
    printf("kws: self-test: %u\n", (unsigned)EK_CODE(e));
    while (e == EK_OK) {
        ek_input(session, 0, 0, &input);
        memset(input.data, 0, input.bytes);
        uint64_t begin = time_us_64();
        e = ek_run(session, 0);
        uint64_t end = time_us_64();
        ek_output(session, 0, 0, &output);
        printf("kws: run: %u, first output byte %u, %u us\n", (unsigned)EK_CODE(e), *(const uint8_t *)output.data,
               (unsigned)(end - begin));
        sleep_ms(1000);
    }
    return 1;
}
