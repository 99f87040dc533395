//! The DHCP sockets: receive, ask policy, send.
