/* A provider that costs next to nothing: chat completions, whole and streamed.
 *
 *     upstream PORT INTERVAL_MS CHUNKS
 *
 * One thread over one epoll set.  A request whose body holds "stream":true gets
 * CHUNKS events, the first at once and then one each INTERVAL_MS; any other gets
 * one JSON object of about 600 bytes.  Heads are read as far as it takes to find
 * the body, and no further: it stands behind gateways that are to be measured.
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

#define MAX_FD 8192
#define IN_SIZE 65536

struct conn {
    char *in;
    size_t in_len;
    int left;          /* events that are due; 0 when nothing streams */
    uint64_t next_at;  /* when the next one is */
};

static struct conn conns[MAX_FD];
static int highest, interval_ms, chunks, epoll_fd;
static char whole[2048], first[2048], event[1024], last[2048];
static size_t whole_len, first_len, event_len, last_len;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static size_t chunked(char *out, const char *data) {
    return (size_t)sprintf(out, "%zx\r\n%s\r\n", strlen(data), data);
}

#define CHUNK_OF(delta, finish) \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1," \
    "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":" delta ",\"finish_reason\":" \
    finish "}]}\n\n"

static void prepare(void) {
    char text[400], body[1024];
    memset(text, 'w', sizeof text - 1);
    text[sizeof text - 1] = 0;
    int n = sprintf(body,
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,"
        "\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
        "\"content\":\"%s\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,"
        "\"completion_tokens\":12,\"total_tokens\":21}}", text);
    whole_len = (size_t)sprintf(whole,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        "content-length: %d\r\n\r\n%s", n, body);
    first_len = (size_t)sprintf(first,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        "transfer-encoding: chunked\r\n\r\n");
    first_len += chunked(first + first_len,
        CHUNK_OF("{\"role\":\"assistant\",\"content\":\"word \"}", "null"));
    event_len = chunked(event, CHUNK_OF("{\"content\":\"word \"}", "null"));
    last_len = chunked(last,
        CHUNK_OF("{}", "\"stop\"")
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,"
        "\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,"
        "\"completion_tokens\":12,\"total_tokens\":21}}\n\ndata: [DONE]\n\n");
    last_len += (size_t)sprintf(last + last_len, "0\r\n\r\n");
}

static void drop(int fd) {
    conns[fd].left = 0;
    conns[fd].in_len = 0;
    close(fd);
}

static void say(int fd, const char *data, size_t len) {
    /* Small, and the gateway reads: a full buffer is a broken measurement. */
    if (send(fd, data, len, MSG_NOSIGNAL) != (ssize_t)len) drop(fd);
}

static void answer(int fd, const char *body) {
    struct conn *c = &conns[fd];
    if (strstr(body, "\"stream\":true") == NULL) {
        say(fd, whole, whole_len);
        return;
    }
    c->left = chunks - 1;
    c->next_at = now_ns() + (uint64_t)interval_ms * 1000000u;
    say(fd, first, first_len);
}

static void readable(int fd) {
    struct conn *c = &conns[fd];
    ssize_t n = recv(fd, c->in + c->in_len, IN_SIZE - 1 - c->in_len, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    c->in_len += (size_t)n;
    c->in[c->in_len] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (end == NULL) return;
    char *length = strcasestr(c->in, "content-length:");
    size_t body_len = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
    if (c->in_len < (size_t)(end + 4 - c->in) + body_len) return;
    c->in_len = 0;
    answer(fd, end + 4);
}

static void tick(uint64_t now) {
    for (int fd = 0; fd <= highest; fd++) {
        struct conn *c = &conns[fd];
        if (c->left == 0 || c->next_at > now) continue;
        c->next_at += (uint64_t)interval_ms * 1000000u;
        if (--c->left) say(fd, event, event_len);
        else say(fd, last, last_len);
    }
}

static void take(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (conns[fd].in == NULL) conns[fd].in = malloc(IN_SIZE);
        conns[fd].in_len = 0;
        conns[fd].left = 0;
        if (fd > highest) highest = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    interval_ms = atoi(argv[2]);
    chunks = atoi(argv[3]);
    prepare();
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024)) {
        perror("upstream");
        return 1;
    }
    epoll_fd = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, got[256];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int streaming = 0;
        for (int fd = 0; fd <= highest && !streaming; fd++) streaming = conns[fd].left;
        int n = epoll_wait(epoll_fd, got, 256, streaming ? 1 : -1);
        for (int i = 0; i < n; i++) {
            if (got[i].data.fd == listener) take(listener);
            else readable(got[i].data.fd);
        }
        if (streaming) tick(now_ns());
    }
}
