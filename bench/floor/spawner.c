/* The spawner: a tiny process of one thread, so that a clone has little to copy. */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct shared *shared;

/* Whoever started us may ignore or block signals (Python ignores SIGPIPE); boxes inherit. */
static void reset_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    MUST(sigprocmask(SIG_SETMASK, &none, NULL));
}

static int split(struct request *rq, size_t size)
{
    int words = 0;
    for (char *word = rq->words; word < rq->words + size && words < ARGV_MAX; word += strlen(word) + 1)
        rq->argv[words++] = word;
    rq->argv[words] = NULL;
    return words;
}

/* Reads one request; 0 at the end of the stream. */
static int receive(int socket, struct request *rq)
{
    union {
        char bytes[CMSG_SPACE(STDIO * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {rq->words, sizeof rq->words - 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
    };
    ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    MUST(size);
    if (size == 0)
        return 0;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (!rights || rights->cmsg_len != CMSG_LEN(STDIO * sizeof(int)) || rq->words[size - 1] != '\0'
        || !split(rq, (size_t)size)) {
        errno = EBADMSG;
        die("request");
    }
    memcpy(rq->stdio, CMSG_DATA(rights), sizeof rq->stdio);
    return 1;
}

_Noreturn void spawner(int socket, const struct sock_fprog *filter)
{
    static struct request rq;
    struct answer answer;

    MUST(setsid()); /* Ctrl-C is the caller's business */
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
    reset_signals();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    fit_landlock();
    build_template();
    while (receive(socket, &rq)) {
        stamp(AT_REQUEST);
        answer.status = run_box(&rq, filter);
        memcpy(answer.at, shared->at, sizeof answer.at);
        MUST(send(socket, &answer, sizeof answer, 0));
        for (int i = 0; i < STDIO; i++)
            close(rq.stdio[i]);
    }
    _exit(0);
}
