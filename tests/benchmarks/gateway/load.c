/* A client that costs next to nothing: so many connections, each with one request.
 *
 *     load PORT CONNECTIONS SECONDS STREAM KEY
 *
 * STREAM is 1 for streamed completions, else 0; KEY goes into an authorization
 * field.  Bodies differ in length, as those of real clients do.  After a warm-up
 * it prints "go", and at the end one JSON object: requests, events (of streams),
 * errors, and the median and the 99th percentile, in microseconds, of the time to
 * the whole answer, or to the first byte of a stream's body.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_SIZE 65536
#define MAX_TIMES 2000000
#define WARM_UP_NS 500000000u

struct conn {
    int fd;
    char in[IN_SIZE];   /* the head, then whatever was read last */
    size_t in_len;
    long left;          /* of a sized body; -1 when it is chunked */
    int in_body, newlines, seen_first;
    char tail[8];       /* the last bytes of a chunked body */
    uint64_t sent_at;
};

static struct sockaddr_in to;
static int stream, counting;
static const char *key;
static uint32_t seed = 1;
static uint64_t requests, events, errors;
static uint32_t *times, times_len;
static int epoll_fd;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void open_conn(struct conn *c) {
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to)) { perror("load"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void ask(struct conn *c) {
    char text[512], body[1024], out[2048];
    seed = seed * 1664525u + 1013904223u;
    int pad = 100 + (int)(seed >> 24);
    memset(text, 'q', (size_t)pad);
    text[pad] = 0;
    int n = sprintf(body,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
        "{\"role\":\"user\",\"content\":\"%s\"}],\"temperature\":0.7,\"max_tokens\":200%s}", text,
        stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    int len = sprintf(out,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "user-agent: load/1\r\naccept: application/json\r\n"
        "authorization: Bearer %s\r\ncontent-type: application/json\r\n"
        "content-length: %d\r\n\r\n%s", key, n, body);
    c->in_len = 0;
    c->in_body = c->seen_first = c->newlines = 0;
    memset(c->tail, 0, sizeof c->tail);
    c->sent_at = now_ns();
    if (send(c->fd, out, (size_t)len, MSG_NOSIGNAL) != len) { perror("load"); exit(1); }
}

static void took(struct conn *c) {
    if (counting && times_len < MAX_TIMES)
        times[times_len++] = (uint32_t)((now_ns() - c->sent_at) / 1000u);
}

static void count_events(struct conn *c, const char *data, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (data[i] == '\n') { if (++c->newlines == 2 && counting) events++; }
        else c->newlines = 0;
    }
}

/* Take bytes of a body; 1 at its end. */
static int body(struct conn *c, const char *data, size_t len) {
    if (len && stream && !c->seen_first) { c->seen_first = 1; took(c); }
    if (c->left >= 0) return (c->left -= (long)len) <= 0;
    count_events(c, data, len);
    size_t keep = len < 5 ? len : 5;
    memmove(c->tail, c->tail + keep, 5 - keep);
    memcpy(c->tail + 5 - keep, data + len - keep, keep);
    return memcmp(c->tail, "0\r\n\r\n", 5) == 0;
}

static void readable(struct conn *c) {
    char *at = c->in + (c->in_body ? 0 : c->in_len);
    ssize_t n = recv(c->fd, at, (size_t)(c->in + IN_SIZE - 1 - at), 0);
    if (n <= 0) {
        errors++;
        close(c->fd);
        open_conn(c);
        ask(c);
        return;
    }
    size_t len = (size_t)n;
    if (!c->in_body) {
        c->in_len += len;
        c->in[c->in_len] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (end == NULL) return;
        if (memcmp(c->in + 9, "200", 3)) errors++;
        char *length = strcasestr(c->in, "content-length:");
        c->left = length && length < end ? strtol(length + 15, NULL, 10) : -1;
        c->in_body = 1;
        at = end + 4;
        len = (size_t)(c->in + c->in_len - at);
    }
    if (!body(c, at, len)) return;
    if (counting) requests++;
    if (!stream) took(c);
    ask(c);
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    int count = atoi(argv[2]);
    double seconds = atof(argv[3]);
    stream = atoi(argv[4]);
    key = argv[5];
    to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    times = malloc(MAX_TIMES * sizeof *times);
    epoll_fd = epoll_create1(0);
    struct conn *conns = calloc((size_t)count, sizeof *conns);
    for (int i = 0; i < count; i++) { open_conn(&conns[i]); ask(&conns[i]); }
    uint64_t start = now_ns() + WARM_UP_NS;
    uint64_t end = start + (uint64_t)(seconds * 1e9);
    struct epoll_event got[256];
    for (;;) {
        uint64_t now = now_ns();
        if (!counting && now >= start) { counting = 1; puts("go"); fflush(stdout); }
        if (now >= end) break;
        int n = epoll_wait(epoll_fd, got, 256, 10);
        for (int i = 0; i < n; i++) readable(got[i].data.ptr);
    }
    qsort(times, times_len, sizeof *times, by_size);
    printf("{\"requests\": %llu, \"events\": %llu, \"errors\": %llu, "
           "\"p50_us\": %u, \"p99_us\": %u}\n",
           (unsigned long long)requests, (unsigned long long)events,
           (unsigned long long)errors,
           times_len ? times[times_len / 2] : 0, times_len ? times[times_len * 99 / 100] : 0);
    return 0;
}
