// From a multiboot loader to 64 bits: the first GiB mapped as it lies, vectors and tiles switched on, then Main.
.set LOAD, 0x100000
.section .boot,"ax"
.code32
.balign 4
header:
  .long 0x1BADB002, 0x00010000, -(0x1BADB002 + 0x00010000)
  .long header, LOAD, 0, bss_end, start
.globl start
start:
  cli
  movl $stack_top, %esp
  movl $directory_pointers, %eax
  orl $3, %eax
  movl %eax, page_map
  movl $directory, %eax
  orl $3, %eax
  movl %eax, directory_pointers
  xorl %ecx, %ecx
1:
  movl %ecx, %eax
  shll $21, %eax  // pages of 2 MiB
  orl $0x83, %eax
  movl %eax, directory(, %ecx, 8)
  incl %ecx
  cmpl $512, %ecx
  jne 1b
  movl $page_map, %eax
  movl %eax, %cr3
  movl %cr4, %eax
  orl $0x40620, %eax  // PAE, FXSR, SIMD exceptions, XSAVE
  movl %eax, %cr4
  movl $0xC0000080, %ecx  // EFER: long mode
  rdmsr
  orl $0x100, %eax
  wrmsr
  movl %cr0, %eax
  andl $~4, %eax
  orl $0x80000002, %eax
  movl %eax, %cr0
  lgdt gdt_pointer
  ljmp $8, $start64
.code64
start64:
  xorl %ecx, %ecx
  xorl %edx, %edx
  movl $0x600e7, %eax  // XCR0: x87, SSE, AVX, AVX-512, tiles
  xsetbv
  movq $stack_top, %rsp
  call Main
2:
  hlt
  jmp 2b
.balign 16
gdt:
  .quad 0, 0x00209A0000000000, 0x0000920000000000
gdt_pointer:
  .word 23
  .long gdt
.section .bss
.balign 4096
page_map: .skip 4096
directory_pointers: .skip 4096
directory: .skip 4096
.skip 65536
stack_top:
.section .note.GNU-stack,"",@progbits
