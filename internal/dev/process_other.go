//go:build unix && !linux

package dev

import "syscall"

// childAttributes keeps the terminal's interrupt from nodes: Run stops them in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
