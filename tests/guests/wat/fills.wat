;; Takes 512 MiB and fills them again and again, a single instruction each time, which nothing interrupts.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (memory.grow (i32.const 8191)))
    (loop $again
      (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x20000000))
      (br $again))))
