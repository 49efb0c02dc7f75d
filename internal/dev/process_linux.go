package dev

import "syscall"

// childAttributes makes nodes die with this process, however it dies, and keeps the terminal's interrupt from them: Run
// stops them in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
