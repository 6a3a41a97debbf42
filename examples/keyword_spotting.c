/* Firmware of keyword_spotting.py: raw audio -> MFCC -> scores, for every clip of clips.h. */
#include "clips.h" /* clips, CLIPS, CLIP_SAMPLES and, by Mfcc.header, `front` */
#include "kws.h"
#ifdef EK_PORT
#include "port.h"
#define say ek_port_print
#else
#include <stdio.h>
#define say(text) fputs(text, stdout)
#endif

EK_ALIGNED(16) static uint8_t memory[KWS_MEMORY_BYTES];
static int32_t work[FRONT_WORK];

static void hex(const char *what, const uint8_t *bytes, size_t n)
{
    say(what);
    for (size_t i = 0; i < n; i++) {
        char text[3] = { "0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15], 0 };
        say(text);
    }
    say("\n");
}

int main(void)
{
    ek_session *s;
    ek_config c;
    ek_tensor in, out;
    kws_config(&c, memory);
    if (ek_open(&s, &c) != EK_OK || ek_selftest(s) != EK_OK)
        return 1;
    for (unsigned clip = 0; clip < (unsigned)CLIPS; clip++) {
        ek_input(s, 0, 0, &in);
        int8_t *to = (int8_t *)in.data;
        for (unsigned at = 0; at + FRONT_FRAME <= (unsigned)CLIP_SAMPLES; at += FRONT_HOP, to += front.coefficients)
            ek_mfcc_frame(&front, clips + clip * CLIP_SAMPLES + at, work, to);
        hex("features ", (const uint8_t *)in.data, in.bytes);
        if (ek_run(s, 0) != EK_OK)
            return 1;
        ek_output(s, 0, 0, &out);
        hex("scores ", (const uint8_t *)out.data, out.bytes);
    }
    return 0;
}
