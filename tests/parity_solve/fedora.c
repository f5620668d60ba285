/* Loaded into dnf: Debian's libsolv is not configured with FEDORA=1, as RHEL's and Fedora's are. What that changes in
 * solving is this flag, by which packages of two architectures can be there together in one version. */
#include <dlfcn.h>

/* POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS of solv/pool.h */
enum { COLORS = 10 };

void *pool_create(void) {
    void *libsolv = dlopen("libsolv.so.1", RTLD_LAZY);
    void *(*create)(void) = (void *(*)(void))dlsym(libsolv, "pool_create");
    int (*set_flag)(void *, int, int) = (int (*)(void *, int, int))dlsym(libsolv, "pool_set_flag");
    void *pool = create();
    set_flag(pool, COLORS, 1);
    return pool;
}
