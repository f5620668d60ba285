/* Loaded into dnf, in front of libsolv. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <solv/pool.h>
#include <solv/solver.h>

/* As libsolv is configured for RHEL and Fedora (-DFEDORA=1): packages of two architectures can be there together. */
Pool *pool_create(void) {
    Pool *(*create)(void) = dlsym(RTLD_NEXT, "pool_create");
    Pool *pool = create();
    pool_set_flag(pool, POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS, 1);
    return pool;
}

/* What is below stays as it is, which dnf has no words for. */
int solver_solve(Solver *solver, Queue *job) {
    int (*solve)(Solver *, Queue *) = dlsym(RTLD_NEXT, "solver_solve");
    Repo *installed = solver->pool->installed;
    if (installed)
        queue_insert2(job, 0, SOLVER_LOCK | SOLVER_SOLVABLE_REPO, installed->repoid);
    return solve(solver, job);
}
