/* rocketmq-client-python 2.0.0 looks four functions up when it is imported that the C++ library in the wheel rocketmq 0.4.4 does not
 * have. Linked to that library and laid beside the package's ffi.py, this makes the rest of it work: what needs one of the four is
 * refused as the package refuses any failure. */
void *CreateOrderlyProducer(const char *group) { (void)group; return 0; }
void *CreateTransactionProducer(const char *group, void *check, void *user) { (void)group; (void)check; (void)user; return 0; }
int SendMessageTransaction(void *producer, void *message, void *execute, void *user, void *result) {
    (void)producer; (void)message; (void)execute; (void)user; (void)result; return -1;
}
int SendMessageOrderlyByShardingKey(void *producer, void *message, const char *key, void *result) {
    (void)producer; (void)message; (void)key; (void)result; return -1;
}
