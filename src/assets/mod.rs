//! Kernels, initrds and loaders, held once in memory and shared by TFTP and HTTP.
