// Self-test of @name@, then one inference every second.
#include <@name@.h>

EK_ALIGNED(16) static uint8_t memory[@NAME@_MEMORY_BYTES];
static ek_session *session;
static ek_status status;

void setup() {
  Serial.begin(115200);
  ek_config config;
  @name@_config(&config, memory);
  status = ek_open(&session, &config);
  if (status == EK_OK) status = ek_selftest(session);
  Serial.print("@name@: self-test: ");
  Serial.println(EK_CODE(status));
}

void loop() {
  if (status == EK_OK) {
    ek_tensor input, output;
    ek_input(session, 0, 0, &input);
    memset(input.data, 0, input.bytes);
    status = ek_run(session, 0);
    ek_output(session, 0, 0, &output);
    Serial.print("@name@: first output byte ");
    Serial.println(*(const uint8_t *)output.data);
  }
  delay(1000);
}
