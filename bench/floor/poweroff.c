// The first process of a machine that is to end at once.
#include <sys/reboot.h>

int main(void) {
    return reboot(RB_AUTOBOOT);
}
