// SPDX-License-Identifier: GPL-2.0
// A small module that needs symbols of the kernel: compiled to prove the headers.
#include <linux/module.h>
#include <linux/netdevice.h>

static int __init proof_init(void)
{
	pr_info("proof: %d devices\n", !!first_net_device(&init_net));
	return 0;
}

static void __exit proof_exit(void) {}

module_init(proof_init);
module_exit(proof_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Proof that out-of-tree modules compile");
