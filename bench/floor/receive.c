// The first process of a machine that takes so many bytes at a time from its port into memory, and says when it has them.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, TRIES = 5000, MOMENT_US = 1000, DEVICES = 8 };

// The port's name has the number of its device among those of the machine.
static int opened(void) {
    char path[] = "/dev/vport0p1";
    for (int tries = 0; tries < TRIES; tries++) {
        path[sizeof "/dev/vport" - 1] = '0' + tries % DEVICES;
        const int port = open(path, O_RDWR);
        if (port >= 0) return port;
        usleep(MOMENT_US);
    }
    return -1;
}

static int taken(int port, int file, long left) {
    static char block[BLOCK];
    while (left > 0) {
        const ssize_t got = read(port, block, left < BLOCK ? left : BLOCK);
        if (got <= 0 || write(file, block, got) != got) return 0;
        left -= got;
    }
    return 1;
}

int main(void) {
    const char *said = getenv("TAKE_BYTES");
    const long bytes = said ? atol(said) : 0;
    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    mount("tmpfs", "/own", "tmpfs", 0, "size=90%");
    const int port = opened();
    while (port >= 0 && bytes > 0) {
        const int file = open("/own/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (write(port, "r", 1) != 1 || !taken(port, file, bytes) || write(port, "d", 1) != 1) break;
        close(file);
    }
    return reboot(RB_AUTOBOOT);
}
