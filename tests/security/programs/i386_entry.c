/* Enter the kernel by int 0x80, as a 32-bit program would, and print what came back.
 *
 * usage: i386_entry getpid | i386_entry chmod PATH MODE
 *
 * Link without PIE: the 32-bit entry takes 32 bits of each address.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { I386_CHMOD = 15, I386_GETPID = 20 };

static char path[4096];

static int enter(int number, unsigned first, unsigned second)
{
    int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(second)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "getpid") == 0) {
        printf("%d\n", enter(I386_GETPID, 0, 0));
    } else if (argc == 4 && strcmp(argv[1], "chmod") == 0) {
        strncpy(path, argv[2], sizeof path - 1);
        printf("%d\n", enter(I386_CHMOD, (unsigned)(unsigned long)path, (unsigned)atoi(argv[3])));
    } else {
        return 2;
    }
    return 0;
}
