;; Asks for something no host gives.
(module
  (import "acme:rockets/engine" "ignite" (func $ignite))
  (memory (export "memory") 1)
  (func (export "_start") (call $ignite)))
