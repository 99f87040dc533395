//! What TFTP and NFS tell, turned into boot events; and what TFTP may send.
