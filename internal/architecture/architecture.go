// Package architecture holds the arrows of the house: which package may import which, each rule with its reason. It has
// no code of its own; its tests read the imports of the whole module and fail on an arrow that runs upward or sideways.
package architecture
