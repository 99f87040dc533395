#!/bin/bash
# dracut module "bench": a line in the kernel's log once the root is mounted. All that the bench adds to dracut's images.

check() {
    return 0
}

depends() {
    return 0
}

install() {
    # shellcheck disable=SC2154 # dracut sets moddir
    inst_hook initqueue/finished 00 "$moddir/root-mounted.sh"
}
