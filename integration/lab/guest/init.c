/*
 * The whole user space of a lab guest: PID 1, written to prove things from outside.
 *
 *  - answers ping (the kernel) and HTTP on port 80 with its name, boot, counter and uptime as JSON;
 *  - appends a record to /dev/vda several times a second, durable before it counts (O_DIRECT | O_DSYNC);
 *  - fills memory once, before it answers, and dirties memory at a chosen rate;
 *  - powers off at the ACPI power button or GET /poweroff, panics at GET /crash;
 *  - is its own QEMU guest agent, as far as its clock goes, which GET /behind?s=N puts back, and a guest-exec goes that
 *    runs for two seconds, whatever it is, and says its own arguments, as the JSON that they came in.
 *
 * The disk log (disklog.py reads it). A slot is 512 bytes. A boot looks for the first empty slot, and from there
 * writes its records seq 0, 1, 2... one slot each. Before each write it reads the slot: is it taken, then somebody
 * else writes too; it counts a conflict, keeps off and goes on behind what is there. So no record is ever
 * overwritten on purpose, and two writers at once leave interleaved boots, or a sequence number twice or missing.
 * One writer after another never does.
 *
 * From the kernel command line: dr.name= dr.ip= dr.gw= dr.gwmac= dr.writes=/s dr.dirty=MiB/s dr.dirtysize=MiB dr.fill=MiB
 * dr.agent=1
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <linux/rtc.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOT 512
#define SCAN (256 * 1024)
static const char MAGIC[8] = "DRLAB1\n";

struct record {
    char magic[8];
    uint8_t boot[16];
    uint64_t seq, slot, uptime_ms, wall_ms, conflicts;
    char name[32];
    uint8_t padding[SLOT - 96];
};
_Static_assert(sizeof(struct record) == SLOT, "a record fills its slot");

static char cmdline[4096], name[32] = "guest", boot_text[33];
static uint8_t boot[16];
static volatile uint64_t counter, slot_now, conflicts;
static volatile int disk_error; /* errno of the last failed access, ENOSPC when the log is full */
static volatile long dirty_mib_s, clock_sets;
static long commands; /* that libvirt had run here; what the last one says, and when it began */
static char command_said[400];
static uint64_t command_began_ms;

static uint64_t now_ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static const char *option(const char *key, const char *otherwise, char *buffer, size_t size)
{
    const char *at = strstr(cmdline, key);
    if (!at)
        return otherwise;
    at += strlen(key);
    size_t length = strcspn(at, " \n");
    if (length >= size)
        length = size - 1;
    memcpy(buffer, at, length);
    buffer[length] = 0;
    return buffer;
}

static long option_number(const char *key, long otherwise)
{
    char buffer[32];
    const char *text = option(key, NULL, buffer, sizeof buffer);
    return text ? atol(text) : otherwise;
}

/* The modules' names begin with two digits: their place in the order. */
static void load_modules(void)
{
    struct dirent **entries;
    int count = scandir("/modules", &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[300];
        snprintf(path, sizeof path, "/modules/%s", entries[i]->d_name);
        if (entries[i]->d_name[0] == '.')
            continue;
        if (strstr(path, "virtio_console") && !option_number("dr.agent=", 0))
            continue; /* it costs a boot under TCG some time */
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0)
            printf("lab: cannot load %s: %s\n", path, strerror(errno));
        close(fd);
    }
}

static void configure_network(void)
{
    char ip[32], gateway[32], mac[32];
    struct ifreq request = {0};
    struct sockaddr_in *address = (struct sockaddr_in *)&request.ifr_addr;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int loopback = 0; loopback < 2; loopback++) {
        strcpy(request.ifr_name, loopback ? "lo" : "eth0");
        address->sin_family = AF_INET;
        inet_pton(AF_INET, loopback ? "127.0.0.1" : option("dr.ip=", "10.83.0.250", ip, sizeof ip), &address->sin_addr);
        if (ioctl(fd, SIOCSIFADDR, &request) != 0)
            printf("lab: cannot set the address of %s: %s\n", request.ifr_name, strerror(errno));
        inet_pton(AF_INET, "255.255.255.0", &address->sin_addr);
        ioctl(fd, SIOCSIFNETMASK, &request);
        request.ifr_flags = IFF_UP | IFF_RUNNING;
        ioctl(fd, SIOCSIFFLAGS, &request);
    }
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(9)};
    inet_pton(AF_INET, option("dr.gw=", "10.83.0.1", gateway, sizeof gateway), &there.sin_addr);
    unsigned int b[6];
    if (sscanf(option("dr.gwmac=", "", mac, sizeof mac), "%x:%x:%x:%x:%x:%x", b, b + 1, b + 2, b + 3, b + 4, b + 5) == 6) {
        /* A fixed neighbour entry: the first answer must not wait for ARP. */
        struct arpreq arp = {.arp_flags = ATF_COM | ATF_PERM};
        memcpy(&arp.arp_pa, &there, sizeof there);
        arp.arp_ha.sa_family = ARPHRD_ETHER;
        for (int i = 0; i < 6; i++)
            arp.arp_ha.sa_data[i] = (char)b[i];
        strcpy(arp.arp_dev, "eth0");
        ioctl(fd, SIOCSARP, &arp);
    }
    /* One packet out, so that every bridge learns where this guest is now. */
    sendto(fd, "hello", 5, 0, (struct sockaddr *)&there, sizeof there);
    close(fd);
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static int taken(const struct record *r)
{
    return memcmp(r->magic, MAGIC, sizeof MAGIC) == 0;
}

static uint64_t first_empty(int fd, uint64_t slots, char *buffer)
{
    for (uint64_t slot = 0; slot < slots;) {
        ssize_t got = pread(fd, buffer, SCAN, (off_t)(slot * SLOT));
        if (got < SLOT) {
            disk_error = got < 0 ? errno : EIO;
            sleep_ms(100);
            continue;
        }
        disk_error = 0;
        for (ssize_t at = 0; at + SLOT <= got; at += SLOT, slot++)
            if (!taken((struct record *)(buffer + at)))
                return slot;
    }
    return slots;
}

static void *writer(void *unused)
{
    (void)unused;
    long writes = option_number("dr.writes=", 10);
    char *buffer;
    if (writes <= 0 || posix_memalign((void **)&buffer, 4096, SCAN))
        return NULL;
    int fd;
    while ((fd = open("/dev/vda", O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC)) < 0) {
        disk_error = errno;
        sleep_ms(100);
    }
    uint64_t bytes = 0;
    ioctl(fd, BLKGETSIZE64, &bytes);
    uint64_t slots = bytes / SLOT, slot = first_empty(fd, slots, buffer), seq = 0;
    struct record *r = (struct record *)buffer;
    while (slot < slots) {
        if (pread(fd, buffer, SLOT, (off_t)(slot * SLOT)) != SLOT) {
            disk_error = errno;
            sleep_ms(100);
            continue;
        }
        if (taken(r)) {
            conflicts++;
            slot++;
            continue;
        }
        memset(r, 0, sizeof *r);
        memcpy(r->magic, MAGIC, sizeof MAGIC);
        memcpy(r->boot, boot, sizeof boot);
        memcpy(r->name, name, sizeof r->name);
        r->seq = seq;
        r->slot = slot;
        r->uptime_ms = now_ms(CLOCK_BOOTTIME);
        r->wall_ms = now_ms(CLOCK_REALTIME);
        r->conflicts = conflicts;
        if (pwrite(fd, buffer, SLOT, (off_t)(slot * SLOT)) != SLOT) {
            disk_error = errno; /* whether it was written is unknown: take the slot's own word */
            sleep_ms(100);
            if (pread(fd, buffer, SLOT, (off_t)(slot * SLOT)) != SLOT || !taken(r) || memcmp(r->boot, boot, 16) != 0
                || r->seq != seq)
                continue;
        }
        disk_error = 0;
        slot_now = slot++;
        counter = ++seq;
        sleep_ms(1000 / writes);
    }
    disk_error = ENOSPC;
    return NULL;
}

/* Pages that a migration must send: none is empty, and no two are alike. Nobody touches them again. */
static void fill(void)
{
    size_t page = 4096, size = (size_t)option_number("dr.fill=", 0) << 20;
    char *memory = size ? malloc(size) : NULL;
    if (size && !memory)
        printf("lab: no memory to fill\n");
    for (size_t at = 0; memory && at < size; at += page)
        *(volatile size_t *)(memory + at) = at + 1;
}

static void *dirtier(void *unused)
{
    (void)unused;
    long page = 4096, tick_ms = 50, size = option_number("dr.dirtysize=", 32) << 20, at = 0;
    volatile char *memory = NULL;
    for (;; sleep_ms(dirty_mib_s > 0 ? tick_ms : 500)) {
        long pages = dirty_mib_s * (1 << 20) / page * tick_ms / 1000;
        if (pages > 0 && !memory)
            memory = malloc((size_t)size);
        for (; pages > 0 && memory; pages--, at = (at + page) % size)
            memory[at]++;
    }
    return NULL;
}

static void power_off(void)
{
    printf("lab: powering off\n");
    reboot(RB_POWER_OFF);
}

static void *power_button(void *unused)
{
    (void)unused;
    struct pollfd inputs[4];
    nfds_t count = 0;
    for (int i = 0; i < 4; i++) {
        char path[32];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0)
            inputs[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    if (!count)
        printf("lab: no power button\n");
    while (count && poll(inputs, count, -1) > 0)
        for (nfds_t i = 0; i < count; i++) {
            struct input_event event;
            if (inputs[i].revents && read(inputs[i].fd, &event, sizeof event) == sizeof event
                && event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
                power_off();
        }
    return NULL;
}

static void put_clock_back(long seconds)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    now.tv_sec -= seconds;
    if (settimeofday(&now, NULL) != 0)
        printf("lab: cannot put the clock back: %s\n", strerror(errno));
}

static int set_clock_by_rtc(void)
{
    struct rtc_time rtc;
    int fd = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);
    int failed = fd < 0 || ioctl(fd, RTC_RD_TIME, &rtc) != 0;
    if (fd >= 0)
        close(fd);
    if (failed) {
        printf("lab: cannot read the RTC: %s\n", strerror(errno));
        return 0;
    }
    struct tm utc = {.tm_sec = rtc.tm_sec, .tm_min = rtc.tm_min, .tm_hour = rtc.tm_hour,
                     .tm_mday = rtc.tm_mday, .tm_mon = rtc.tm_mon, .tm_year = rtc.tm_year};
    struct timeval now = {.tv_sec = timegm(&utc)};
    return settimeofday(&now, NULL) == 0;
}

static void run_command(const char *line)
{
    const char *from = strchr(line, '['), *to = strrchr(line, ']');
    command_said[0] = 0;
    if (from && to > from)
        snprintf(command_said, sizeof command_said, "%.*s", (int)(to - from + 1), from);
    command_began_ms = now_ms(CLOCK_BOOTTIME);
    commands++;
}

static void command_in_base64(char *to)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t length = strlen(command_said);
    for (size_t at = 0; at < length; at += 3) {
        uint32_t bits = 0;
        for (size_t i = 0; i < 3; i++)
            bits = bits << 8 | (at + i < length ? (uint8_t)command_said[at + i] : 0);
        for (size_t i = 0; i < 4; i++)
            *to++ = at + i > length ? '=' : letters[bits >> (18 - 6 * i) & 63];
    }
    *to = 0;
}

/* One request of libvirt, a line of JSON; as much of the protocol as pings, clocks, commands and a shutdown take. */
static void serve_agent(int port, const char *line)
{
    char reply[900], output[600];
    const char *id = strstr(line, "\"id\":");
    if (strstr(line, "\"guest-sync") && id)
        snprintf(reply, sizeof reply, "%s{\"return\": %llu}\n", strstr(line, "delimited") ? "\xff" : "",
                 strtoull(id + 5, NULL, 10));
    else if (strstr(line, "\"guest-ping\""))
        snprintf(reply, sizeof reply, "{\"return\": {}}\n");
    else if (strstr(line, "\"guest-shutdown\""))
        power_off();
    else if (strstr(line, "\"guest-set-time\"") && set_clock_by_rtc()) {
        clock_sets++;
        snprintf(reply, sizeof reply, "{\"return\": {}}\n");
    } else if (strstr(line, "\"guest-exec-status\"")) {
        int over = now_ms(CLOCK_BOOTTIME) >= command_began_ms + 2000;
        command_in_base64(output);
        if (over)
            snprintf(reply, sizeof reply, "{\"return\": {\"exited\": true, \"exitcode\": 0, \"out-data\": \"%s\"}}\n", output);
        else
            snprintf(reply, sizeof reply, "{\"return\": {\"exited\": false}}\n");
    } else if (strstr(line, "\"guest-exec\"")) {
        run_command(line);
        snprintf(reply, sizeof reply, "{\"return\": {\"pid\": %ld}}\n", commands);
    } else
        snprintf(reply, sizeof reply, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"not here\"}}\n");
    if (write(port, reply, strlen(reply)) < 0)
        printf("lab: cannot answer libvirt: %s\n", strerror(errno));
}

static int open_agent_port(void)
{
    struct dirent **entries;
    int found = -1, count = scandir("/sys/class/virtio-ports", &entries, NULL, alphasort);
    for (int i = 0; i < count && found < 0; i++) {
        char path[300], port[64] = "";
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entries[i]->d_name);
        int fd = entries[i]->d_name[0] == '.' ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (read(fd, port, sizeof port - 1) > 0 && strncmp(port, "org.qemu.guest_agent.0", 22) == 0) {
            snprintf(path, sizeof path, "/dev/%s", entries[i]->d_name);
            found = open(path, O_RDWR | O_CLOEXEC);
        }
        close(fd);
    }
    return found;
}

static void *agent(void *unused)
{
    (void)unused;
    char line[512];
    size_t length = 0;
    int port = -1;
    while (option_number("dr.agent=", 0)) {
        if (port < 0 && (port = open_agent_port()) < 0) {
            sleep_ms(200);
            continue;
        }
        char byte;
        if (read(port, &byte, 1) != 1) {
            sleep_ms(100); /* nobody listens at the other end */
        } else if (byte != '\n') {
            if (length < sizeof line - 1)
                line[length++] = byte;
        } else {
            line[length] = 0;
            length = 0;
            serve_agent(port, line);
        }
    }
    return NULL;
}

static void answer(int client)
{
    char request[512], body[512], head[160];
    ssize_t got = read(client, request, sizeof request - 1);
    if (got <= 0)
        return;
    request[got] = 0;
    const char *rate = strstr(request, "GET /dirty?rate=");
    if (rate)
        dirty_mib_s = atol(rate + strlen("GET /dirty?rate="));
    const char *behind = strstr(request, "GET /behind?s=");
    if (behind)
        put_clock_back(atol(behind + strlen("GET /behind?s=")));
    int length = snprintf(body, sizeof body,
        "{\"name\": \"%s\", \"boot\": \"%s\", \"counter\": %llu, \"slot\": %llu, \"uptime_s\": %.3f, "
        "\"conflicts\": %llu, \"disk_error\": %d, \"dirty_mib_s\": %ld, \"wall_s\": %.3f, \"clock_sets\": %ld, "
        "\"commands\": %ld}\n",
        name, boot_text, (unsigned long long)counter, (unsigned long long)slot_now,
        (double)now_ms(CLOCK_BOOTTIME) / 1000, (unsigned long long)conflicts, disk_error, dirty_mib_s,
        (double)now_ms(CLOCK_REALTIME) / 1000, clock_sets, commands);
    int head_length = snprintf(head, sizeof head,
        "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", length);
    if (write(client, head, (size_t)head_length) < 0 || write(client, body, (size_t)length) < 0)
        return;
    shutdown(client, SHUT_WR);
    if (strncmp(request, "GET /poweroff", 13) == 0 || strncmp(request, "GET /crash", 10) == 0) {
        sleep_ms(100); /* let the answer leave */
        if (request[5] == 'p')
            power_off();
        int fd = open("/proc/sysrq-trigger", O_WRONLY);
        if (write(fd, "c", 1) != 1)
            printf("lab: cannot crash: %s\n", strerror(errno));
    }
}

static void *http(void *unused)
{
    (void)unused;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(80)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&any, sizeof any) != 0 || listen(listener, 16) != 0)
        printf("lab: cannot listen on port 80: %s\n", strerror(errno));
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        struct timeval limit = {.tv_sec = 2};
        if (client < 0) {
            sleep_ms(100);
            continue;
        }
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        answer(client);
        close(client);
    }
    return NULL;
}

static void start(void *(*thread)(void *))
{
    pthread_t id;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    if (pthread_create(&id, &small, thread, NULL) != 0)
        printf("lab: cannot start a thread\n");
}

int main(void)
{
    char buffer[64];
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    reboot(RB_DISABLE_CAD);
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    if (read(fd, cmdline, sizeof cmdline - 1) < 0)
        return 1;
    close(fd);
    snprintf(name, sizeof name, "%s", option("dr.name=", "guest", buffer, sizeof buffer));
    /* Early random numbers could repeat in a guest without entropy; the time cannot. */
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t mix[2] = {(uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec, 0};
    if (getrandom(boot, sizeof boot, GRND_INSECURE) != sizeof boot)
        printf("lab: no random numbers\n");
    for (size_t i = 0; i < sizeof boot; i++)
        boot[i] ^= ((uint8_t *)mix)[i];
    for (size_t i = 0; i < sizeof boot; i++)
        sprintf(boot_text + 2 * i, "%02x", boot[i]);
    dirty_mib_s = option_number("dr.dirty=", 0);
    load_modules();
    configure_network();
    fill();
    start(http);
    start(writer);
    start(power_button);
    start(dirtier);
    start(agent);
    printf("lab: %s is up, boot %s, after %.2f s\n", name, boot_text, (double)now_ms(CLOCK_BOOTTIME) / 1000);
    for (;;)
        if (wait(NULL) < 0)
            sleep_ms(1000);
}
