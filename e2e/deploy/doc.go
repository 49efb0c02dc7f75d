// Package deploy holds the files of ../../deploy to the types and rules of those who read them: the Kubernetes API and
// the configuration of the node. It has no code of its own.
package deploy
